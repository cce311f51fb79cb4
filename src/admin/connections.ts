import { comparePositions, matches, type Cursor } from '../event.ts'
import type { Connection, Connections } from '../hub/connections.ts'
import { Turn } from '../turn.ts'

/** The most topics of a connection that are listed. */
const MOST_TOPICS = 20

/** What a connection is, to who operates the server. Times are milliseconds since the epoch. */
export interface ConnectionRow {
  /** Of this connection alone: the id of its instance, and a number. */
  readonly id: string
  readonly instance: string
  readonly transport: string
  readonly user: string | null
  readonly address: string | null
  /** What the client says that it is. */
  readonly agent: string | null
  readonly since: number
  /** Some of the topics and wildcards that it reads, and how many they are. */
  readonly topics: readonly string[]
  readonly topicCount: number
  /** Whether it is too full to be fed live; how many milliseconds it is behind, and how many bytes wait in it. */
  readonly lagging: boolean
  readonly lag: number
  readonly backlog: number
  /** Conflated: at most so many events a second for each topic; null for all of them. */
  readonly rate: number | null
}

/** Which connections are wanted. */
export interface ConnectionQuery {
  readonly transport?: string | undefined
  readonly user?: string | undefined
  /** Those that read this topic, by its name or by a wildcard. */
  readonly topic?: string | undefined
  /** Those that are too full to be fed live, or have a rate. */
  readonly state?: 'lagging' | 'conflated' | undefined
  /** Those that come after this one. */
  readonly after?: ConnectionPlace | undefined
  /** At most so many. */
  readonly limit: number
}

/** The place of a connection among those of all instances: the oldest comes first. */
export interface ConnectionPlace {
  readonly since: number
  readonly id: string
}

/** Some connections of an instance, and how many there are that are wanted, before and after these too. */
export interface ConnectionPart {
  readonly rows: readonly ConnectionRow[]
  readonly total: number
}

/** How many connections an instance has, and how they do. */
export interface ConnectionCounts {
  readonly sse: number
  readonly ndjson: number
  readonly poll: number
  readonly ws: number
  readonly lagging: number
  readonly conflated: number
}

/** The connections of an instance as they are asked for. Nothing is kept of one that nobody has asked about. */
export class ConnectionList {
  readonly #instance: string
  readonly #connections: Connections
  readonly #position: () => Cursor
  /** They are numbered when they are first looked at, in the order in which they were opened. */
  readonly #numbers = new WeakMap<Connection, number>()
  #last = 0

  /** `position`: how far the instance has come. */
  constructor(instance: string, connections: Connections, position: () => Cursor) {
    this.#instance = instance
    this.#connections = connections
    this.#position = position
  }

  async find(query: ConnectionQuery): Promise<ConnectionPart> {
    const { after, limit } = query
    const rows: ConnectionRow[] = []
    let total = 0
    await new Turn().map(this.#connections, connection => {
      const number = this.#numberOf(connection)
      if (!isWanted(connection, query)) return
      total++
      if (rows.length === limit) return
      const id = `${this.#instance}.${number}`
      if (after && comparePlaces({ since: connection.since, id }, after) <= 0) return
      rows.push(this.#describe(connection, id))
    })
    return { rows, total }
  }

  async count(): Promise<ConnectionCounts> {
    const counts = { sse: 0, ndjson: 0, poll: 0, ws: 0, lagging: this.#connections.lagging, conflated: 0 }
    await new Turn().map(this.#connections, ({ transport, readings }) => {
      counts[transport]++
      if (isConflated({ readings })) counts.conflated++
    })
    return counts
  }

  /** Ends those that are meant, in a way from which their clients come back; how many these are. */
  async disconnect(isMeant: { readonly id?: string; readonly user?: string }): Promise<number> {
    const { id, user } = isMeant
    let count = 0
    // as they are now: who comes back meanwhile stays
    await new Turn().map([...this.#connections], connection => {
      const isOne = id === undefined ? connection.client?.user === user : this.#idOf(connection) === id
      if (!isOne) return
      connection.goodbye('shutdown', this.#connections.spread())
      count++
    })
    return count
  }

  #idOf(connection: Connection): string {
    return `${this.#instance}.${this.#numbers.get(connection)}`
  }

  #numberOf(connection: Connection): number {
    const known = this.#numbers.get(connection)
    if (known !== undefined) return known
    this.#numbers.set(connection, ++this.#last)
    return this.#last
  }

  #describe(connection: Connection, id: string): ConnectionRow {
    const { transport, since, client, filters, readings } = connection
    const rates = readings.flatMap(({ rate }) => rate ?? [])
    return {
      ...{ id, instance: this.#instance, transport, since },
      user: client?.user ?? null,
      address: client?.address ?? null,
      agent: client?.agent ?? null,
      topics: filters.slice(0, MOST_TOPICS),
      topicCount: filters.length,
      lagging: readings.some(({ isLagging }) => isLagging),
      lag: Math.max(0, ...readings.map(({ cursor }) => lagOf(cursor, this.#position()))),
      backlog: Math.max(0, ...readings.map(({ pending }) => pending)),
      rate: rates.length > 0 ? Math.min(...rates) : null
    }
  }
}

/** By when they were opened, and by their ids among those of the same millisecond. */
export function comparePlaces(a: ConnectionPlace, b: ConnectionPlace): number {
  if (a.since !== b.since) return a.since - b.since
  const [instance = '', number] = a.id.split('.')
  const [otherInstance = '', otherNumber] = b.id.split('.')
  if (instance !== otherInstance) return instance < otherInstance ? -1 : 1
  return Number(number) - Number(otherNumber)
}

/** The place of a connection as text, for who asks for the next page. */
export function formatPlace({ since, id }: ConnectionPlace): string {
  return `${since}.${id}`
}

/** Reads what `formatPlace` wrote; undefined when it isn't that. */
export function parsePlace(text: string): ConnectionPlace | undefined {
  const [, since, id] = /^(\d{1,15})\.([\w-]{1,64}\.\d{1,15})$/.exec(text) ?? []
  return id === undefined ? undefined : { since: Number(since), id }
}

function isWanted(connection: Connection, { transport, user, topic, state }: ConnectionQuery): boolean {
  if (state === 'lagging' && !connection.readings.some(({ isLagging }) => isLagging)) return false
  if (state === 'conflated' && !isConflated(connection)) return false
  if (transport !== undefined && connection.transport !== transport) return false
  if (user !== undefined && connection.client?.user !== user) return false
  return topic === undefined || connection.filters.some(filter => matches(filter, topic))
}

function isConflated({ readings }: Pick<Connection, 'readings'>): boolean {
  return readings.some(({ rate }) => rate !== undefined)
}

/** By how many milliseconds a cursor is behind a position. */
function lagOf(cursor: Cursor, position: Cursor): number {
  const behind = cursor.map((at, shard) => {
    const now = position[shard]!
    return comparePositions(at, now) < 0 ? now.ms - at.ms : 0
  })
  return Math.max(0, ...behind)
}
