import { createHash, randomUUID } from 'node:crypto'
import { stopIfGone, type Asker } from '../asker.ts'
import type { Appended, EventLog, State } from '../broker/event-log.ts'
import type { Clock } from '../clock.ts'
import { formatCursor, IDEMPOTENCY_MS, isTopic, parseCursor, type Cursor, type Position } from '../event.ts'
import { Problem, wrong } from '../problem.ts'
import { idOf, type Admitted, type Publication, type Publisher, type Writer } from '../publisher.ts'
import { Turn } from '../turn.ts'
import { Changes, versionOf, type Change } from './feeds.ts'

/** How many notifications an inbox keeps: the newest. */
const INBOX_SIZE = 200

/** How many bytes it keeps of them: each change reads and writes all of it. */
const INBOX_BYTES = 262_144

/** To how many users a notification is sent at a time. */
const AT_A_TIME = 4

/** What is sent, without whom to. */
export interface Message {
  readonly title: string
  readonly body?: string
  /** Goes to a page: `http:`, `https:`, or relative. */
  readonly url?: string
  readonly priority: string
  readonly tags?: readonly string[]
}

/** A notification as its user sees it; `time` in milliseconds since the epoch. */
export interface Notification extends Message {
  readonly id: string
  readonly time: number
  readonly read: boolean
}

/** Which notifications are meant: some, or all. */
export type Selection = { readonly ids: readonly string[] } | { readonly all: true }

/** What comes with a message. */
export interface SendOptions extends Pick<Publication, 'writer' | 'nameOf'> {
  /** Seconds it may be shown. */
  readonly ttl?: number | undefined
  /** The same key again within 10 minutes sends nothing. */
  readonly key?: string | undefined
}

/** Who marks notifications, and whether all must be there. */
export interface MarkOptions extends Pick<Publication, 'writer'> {
  readonly strict?: boolean
}

/** How the events of this feed come in. */
const FEED = { feed: 'notifications', source: 'notifications' } as const

/**
 * Notifications: an inbox for each user, and what happens in it, on `notifications/<user>`. The inbox is the topic's
 * state; every change of it is an event, so that the user's other tabs follow.
 */
export class Notifications {
  readonly #log: EventLog
  readonly #publisher: Publisher
  readonly #clock: Clock
  readonly #changes: Changes

  constructor(log: EventLog, publisher: Publisher, clock: Clock) {
    this.#log = log
    this.#publisher = publisher
    this.#changes = new Changes(log)
    this.#clock = clock
  }

  /**
   * Sends to each user. Resolves with the id for each, once all are stored. Rejects with a `Problem` before anything is
   * stored where one of them may not be sent to, or where its `url` is none.
   */
  async send(to: readonly string[], message: Message, { ttl, key, writer, nameOf }: SendOptions = {}) {
    const bytes = Buffer.byteLength(JSON.stringify(message))
    for (const user of to) this.#publisher.checkSize(topicOf(user), bytes, () => '', 'a notification of')
    if (message.url !== undefined && !isLink(message.url)) throw noLink()
    const admitted = this.#publisher.admit(to.map(topicOf), { ...FEED, writer, nameOf, writes: to.length })
    const sent = await inTurns(to, async user => {
      let name: { id?: string } = {}
      const appended = await this.#change(user, admitted, inbox => {
        name = this.#newName(user, inbox, key)
        const expires = ttl !== undefined && { expires: this.#clock.now() + ttl * 1000 }
        return {
          type: 'notification',
          data: JSON.stringify({ ...name, ...message }),
          inbox: [...inbox, { ...name, ...message, ...expires }],
          ...(ttl !== undefined && { ttl }),
          ...(key !== undefined && { key })
        }
      })
      const { id = formatCursor(idOf(appended!)) } = name
      return { user, id, replayed: appended!.outcome === 'replayed' }
    })
    return {
      ids: Object.fromEntries(sent.map(({ user, id }) => [user, id])),
      replayed: sent.every(({ replayed }) => replayed)
    }
  }

  /**
   * The inbox, newest first, and a cursor after which nothing is missing. Rejects with `BrokerUnavailable`, and with
   * `Unwanted` once `asker` has gone.
   */
  async inbox(
    user: string,
    asker?: Asker
  ): Promise<{ notifications: Notification[]; unread: number; cursor: Cursor }> {
    const cursor = await this.#log.position()
    stopIfGone(asker)
    const inbox = this.#read(user, await this.#log.state(topicOf(user), asker))
    return { notifications: inbox.map(present).reverse(), unread: unreadOf(inbox), cursor }
  }

  /** How many are unread. Rejects as `inbox` does. */
  async unread(user: string, asker?: Asker): Promise<number> {
    return unreadOf(this.#read(user, await this.#log.state(topicOf(user), asker)))
  }

  /**
   * Marks as read; what is not there counts for nothing, unless `strict`: then it rejects with a `Problem` (404). `writer`
   * is the user. Resolves with how many are unread now.
   */
  async markRead(
    user: string,
    selection: Selection,
    { strict = false, writer }: MarkOptions = {}
  ): Promise<number> {
    let unread = 0
    await this.#change(user, this.#admitOwner(user, writer), inbox => {
      const ids =
        'ids' in selection
          ? this.#known(user, inbox, selection.ids, strict)
          : new Set(inbox.map(({ id }) => id))
      const after = inbox.map(item => (ids.has(item.id) ? { ...item, read: true } : item))
      unread = unreadOf(after)
      if (unread === unreadOf(inbox)) return null
      const what = 'ids' in selection ? { ids: [...ids] } : { all: true }
      return { type: 'read', data: JSON.stringify({ ...what, unread }), inbox: after }
    })
    return unread
  }

  /** Hides one. Rejects with a `Problem` (404) when it isn't there. Resolves with how many are unread now. */
  async delete(user: string, id: string, writer?: Writer): Promise<number> {
    let unread = 0
    await this.#change(user, this.#admitOwner(user, writer), inbox => {
      const ids = this.#known(user, inbox, [id], true)
      const after = inbox.filter(item => !ids.has(item.id))
      unread = unreadOf(after)
      return { type: 'deleted', data: JSON.stringify({ ids: [...ids], unread }), inbox: after }
    })
    return unread
  }

  #admitOwner(user: string, writer: Writer | undefined): Admitted {
    return this.#publisher.admit([topicOf(user)], { ...FEED, writer, isOwner: true })
  }

  #change(
    user: string,
    admitted: Admitted,
    decide: (inbox: Item[]) => InboxChange | null
  ): Promise<Appended | null> {
    return this.#changes.apply(topicOf(user), admitted, state => {
      const change = decide(this.#read(user, state))
      if (!change) return null
      const { inbox, ...event } = change
      return { value: storedInbox(inbox), ...event }
    })
  }

  /** The inbox as it is now, oldest first: without what has run out. */
  #read(user: string, state: State | null): Item[] {
    if (!state) return []
    const now = this.#clock.now()
    const { version } = state
    return (JSON.parse(state.value) as StoredItem[])
      .map(item => this.#identify(user, item, version))
      .filter(({ expires = Infinity }) => expires > now)
  }

  /**
   * What a new notification is called. With one shard its id is the event's. With several each stream calls the event by
   * its own position, so that it has an id in its data, which is the same for all: also when it is sent again with its
   * key, but not when that key has been forgotten meanwhile.
   */
  #newName(user: string, inbox: readonly Item[], key: string | undefined): { id?: string } {
    if (this.#log.shards === 1) return {}
    if (key === undefined) return { id: randomUUID() }
    const id = createHash('sha256').update(`${user}\n${key}`).digest('base64url')
    const before = this.#clock.now() - IDEMPOTENCY_MS
    const earlier = inbox.filter(item => item.id.startsWith(id) && item.time < before).length
    return { id: earlier === 0 ? id : `${id}.${earlier}` }
  }

  /** The notifications that are meant: by their ids, or by those that a stream has for the events. */
  #known(user: string, inbox: readonly Item[], ids: readonly string[], strict: boolean): Set<string> {
    const topic = topicOf(user)
    const shard = this.#log.shardOf(topic)
    const known = ids.map(id => {
      const position = parseCursor(id, this.#log.shards)?.[shard]
      const version = position && versionOf(this.#log, topic, position)
      const item = inbox.find(item => item.id === id) ?? inbox.find(item => item.version === version)
      if (!item && strict) throw new Problem('not found', `there is no notification ${id}`)
      return item?.id
    })
    return new Set(known.filter(id => id !== undefined))
  }

  /** A new item has come with the event that made the state which first holds it. */
  #identify(user: string, item: StoredItem, at: Position): Item {
    const { version = versionOf(this.#log, topicOf(user), at) } = item
    const { id = version, time = at.ms, read = false } = item
    return { id, version, time, read, ...item }
  }
}

interface StoredItem extends Message {
  readonly id?: string
  /** That of the inbox when it came. */
  readonly version?: string
  readonly time?: number
  readonly read?: boolean
  /** Milliseconds since the epoch. */
  readonly expires?: number
}

type Item = StoredItem & Notification & { readonly version: string }

interface InboxChange extends Omit<Change, 'value'> {
  readonly inbox: readonly StoredItem[]
}

/** Whether it can be the name of a user: one segment of a topic. */
export function isUser(user: string): boolean {
  return isTopic(topicOf(user)) && !user.includes('/')
}

/** It may run a script in the page of whoever follows it. */
export function noLink(): Problem {
  return wrong('malformed', '/url', 'must be relative, or begin with http: or https:')
}

/** Whether a page may link to it, read as browsers do, which drop blanks and line ends. */
function isLink(url: string): boolean {
  return ['http:', 'https:'].includes(URL.parse(url, 'http://relative')?.protocol ?? '')
}

function topicOf(user: string): string {
  return `notifications/${user}`
}

/** An inbox as it is stored: as many of its newest as it may keep, one at least; null for an empty one, which is no state. */
function storedInbox(inbox: readonly StoredItem[]): string | null {
  const kept: string[] = []
  let bytes = 0
  for (const item of inbox.slice(-INBOX_SIZE).reverse()) {
    const text = JSON.stringify(item)
    bytes += Buffer.byteLength(text) + 1
    if (bytes > INBOX_BYTES && kept.length > 0) break
    kept.unshift(text)
  }
  return kept.length > 0 ? `[${kept.join(',')}]` : null
}

/** Acts on all of them, some at a time, and gives the turn back. Resolves with what came of each, in order. */
async function inTurns<T, U>(all: readonly T[], act: (one: T) => Promise<U>): Promise<U[]> {
  const turn = new Turn()
  const done: U[] = []
  for (let at = 0; at < all.length; at += AT_A_TIME) {
    done.push(...(await Promise.all(all.slice(at, at + AT_A_TIME).map(act))))
    if (turn.isOver) await turn.next()
  }
  return done
}

function unreadOf(inbox: readonly Item[]): number {
  return inbox.filter(({ read }) => !read).length
}

function present({ expires, version, ...notification }: Item): Notification {
  void [expires, version]
  return notification
}
