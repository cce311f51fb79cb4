/** Whom members were told to be there, checked against who is. Pure: no clock, no network. */

/** Somebody in a room, as others are told of him. */
export interface Present {
  readonly id: string
  /** What he tells of himself, as JSON. */
  readonly info: string
}

/** One thing that a connection was told of a room; `at`: when, in milliseconds since the epoch. */
export type Heard = { readonly at: number; readonly room: string } &
  /** The answer to `join`, itself first, and alone when it has joined before; the answer to `leave`, without itself. */
  (
    | { readonly kind: 'in' | 'out'; readonly members: readonly Present[] }
    | { readonly kind: 'joined' | 'left'; readonly member: Present }
  )

/** One connection of a member, from its first message to its last. */
export interface Visit {
  readonly name: string
  readonly instance: string
  /** Whether it is connected now. */
  readonly isOpen: boolean
  readonly log: readonly Heard[]
}

/** What must not be. */
export const PRESENCE_FAULTS = ['ghosts', 'missing members', 'contradictions'] as const

export type PresenceFault = (typeof PRESENCE_FAULTS)[number]

/** One thing that must not be, and where in the visit's log it shows. */
export interface PresenceViolation {
  readonly fault: PresenceFault
  readonly visit: Visit
  readonly index: number
  readonly text: string
}

/**
 * Checks that each visit was told nothing that contradicts what it was told before, and that those that are open now see
 * all who are in their rooms, and nobody else. So there must be rest: nothing is asked for that has no answer yet, and
 * the leases have run out of all who are gone. `newcomers` have come since there was rest: already the first that they
 * were told of a room must be true, but for other newcomers.
 */
export function checkPresence(
  visits: readonly Visit[],
  newcomers: readonly Visit[] = []
): PresenceViolation[] {
  const violations: PresenceViolation[] = []
  const stays = [...visits, ...newcomers].flatMap(visit =>
    [...replay(visit, violations)].map(([room, stay]) => ({ visit, room, ...stay }))
  )
  for (const room of new Set(stays.map(each => each.room))) {
    const here = stays.filter(each => each.room === room && each.visit.isOpen)
    const truth = new Map(here.map(({ ownId, seen }) => [ownId, seen.get(ownId)!]))
    const isNew = new Set(here.filter(({ visit }) => newcomers.includes(visit)).map(({ ownId }) => ownId))
    const withoutNew = (members: ReadonlyMap<string, string>) =>
      new Map([...members].filter(([id]) => !isNew.has(id)))
    for (const { visit, ownId, seen, first, began, index } of here) {
      compare(visit, room, index, seen, truth, violations)
      if (isNew.has(ownId)) compare(visit, room, began, withoutNew(first), withoutNew(truth), violations)
    }
  }
  return violations
}

/** What a visit knows of a room that it is in. */
interface Stay {
  readonly ownId: string
  /** What each one tells of himself, by id: as it was told when it came, and as it knows by now. */
  readonly first: ReadonlyMap<string, string>
  readonly seen: Map<string, string>
  /** Where in the log it came, and where it was told something of the room last. */
  readonly began: number
  index: number
}

/** Goes through what a visit was told; the rooms that it is in at the end. */
function replay(visit: Visit, violations: PresenceViolation[]): Map<string, Stay> {
  const rooms = new Map<string, Stay>()
  for (const [index, heard] of visit.log.entries()) {
    const { room } = heard
    const contradiction = (text: string) =>
      violations.push({ fault: 'contradictions', visit, index, text: `${room}: ${text}` })
    const stay = rooms.get(room)
    if (stay) stay.index = index
    if ('member' in heard) {
      const { id, info } = heard.member
      if (!stay) {
        contradiction(`${id} has ${heard.kind}, and nobody asked`)
      } else if (id === stay.ownId) {
        contradiction('it was told of itself')
      } else if (heard.kind === 'joined') {
        if (stay.seen.get(id) === info) contradiction(`${id} has joined again, and nothing is new`)
        stay.seen.set(id, info)
      } else if (!stay.seen.delete(id)) {
        contradiction(`${id} has left, and was not there`)
      }
      continue
    }
    const told = new Map(heard.members.map(({ id, info }) => [id, info]))
    // who joins again is answered with itself alone: of the others it knows
    const members = stay && heard.kind === 'in' ? new Map([...stay.seen, ...told]) : told
    if (told.size < heard.members.length) contradiction('somebody is there twice')
    const ownId = heard.kind === 'in' ? heard.members[0]?.id : stay?.ownId
    // what it tells of itself is what has changed
    const others = (seen: ReadonlyMap<string, string>) =>
      JSON.stringify([...seen].filter(([id]) => id !== ownId).sort())
    if (ownId === undefined) contradiction('an answer without itself')
    else if (stay && (stay.ownId !== ownId || others(stay.seen) !== others(members))) {
      contradiction(`the answer ${others(members)} is not what was told before: ${others(stay.seen)}`)
    }
    if (heard.kind === 'out') rooms.delete(room)
    else if (ownId !== undefined) {
      const { first, began } = stay ?? { first: new Map(members), began: index }
      rooms.set(room, { ownId, first, seen: members, began, index })
    }
  }
  return rooms
}

function compare(
  visit: Visit,
  room: string,
  index: number,
  seen: ReadonlyMap<string, string>,
  truth: ReadonlyMap<string, string>,
  violations: PresenceViolation[]
): void {
  const differs = (
    fault: PresenceFault,
    one: ReadonlyMap<string, string>,
    two: ReadonlyMap<string, string>
  ) => {
    for (const [id, info] of one) {
      if (two.get(id) !== info) violations.push({ fault, visit, index, text: `${room}: ${id} ${info}` })
    }
  }
  differs('ghosts', seen, truth)
  differs('missing members', truth, seen)
}
