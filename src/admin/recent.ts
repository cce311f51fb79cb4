import type { Gap } from '../event.ts'

/** How many gaps, and how many refusals, are kept. */
const MOST = 200

/** How many of a gap's topics are kept. */
const MOST_TOPICS = 10

/** A gap that was announced, to one reader or to many within a second. Times are milliseconds since the epoch. */
export interface GapNote {
  readonly time: number
  readonly reason: string
  readonly transport: string
  /** Some of the topics, and how many they are. */
  readonly topics: readonly string[]
  readonly topicCount: number
  /** How many readers were told. */
  readonly count: number
}

/** What was refused within a second. */
export interface RefusalNote {
  readonly time: number
  /** `connection`: a stream or WebSocket; `access`: by the token or the origin; `write` and `read`: past a limit, or for want of room. */
  readonly what: string
  readonly reason: string
  readonly count: number
}

/** Counts so far, by what and why. */
export interface Refused {
  readonly what: string
  readonly reason: string
  readonly count: number
}

/** What has gone wrong for clients lately: the newest gaps and refusals, each many together. */
export interface Recent {
  readonly gaps: readonly GapNote[]
  readonly refusals: readonly RefusalNote[]
}

/** Keeps them, the newest last. What comes by thousands within a second is one note. */
export class RecentTrouble {
  #gaps: GapNote[] = []
  #refusals: RefusalNote[] = []
  /** How often it was refused, by what and why, when that was looked at last. */
  readonly #counts = new Map<string, number>()
  /** What `takeNews` has not given yet. */
  #news: { gaps: GapNote[]; refusals: RefusalNote[] } = { gaps: [], refusals: [] }
  /** The gaps of this second. */
  #second = { time: 0, notes: new Map<string, GapNote>() }

  /** The newest ones, the oldest first. */
  get all(): Recent {
    return { gaps: [...this.#gaps, ...this.#second.notes.values()].slice(-MOST), refusals: this.#refusals }
  }

  /** A gap is told to so many readers at a time. */
  noteGap({ reason, topics }: Gap, transport: string, count: number, now: number): void {
    const time = Math.floor(now / 1000) * 1000
    if (time !== this.#second.time) this.#closeSecond(time)
    const key = `${reason} ${transport} ${topics.length} ${topics[0]}`
    const { notes } = this.#second
    const known = notes.get(key)
    if (!known && notes.size >= MOST) return
    const told = known ? known.count : 0
    const some = known?.topics ?? topics.slice(0, MOST_TOPICS)
    notes.set(key, { time, reason, transport, topics: some, topicCount: topics.length, count: told + count })
  }

  /** What was refused so far: what is more than the last time was refused since then. */
  noteRefused(refused: readonly Refused[], time: number): void {
    const fresh: RefusalNote[] = []
    for (const { what, reason, count } of refused) {
      const key = `${what} ${reason}`
      const more = count - (this.#counts.get(key) ?? 0)
      this.#counts.set(key, count)
      if (more > 0) fresh.push({ time, what, reason, count: more })
    }
    if (fresh.length === 0) return
    this.#refusals = [...this.#refusals, ...fresh].slice(-MOST)
    this.#news.refusals = [...this.#news.refusals, ...fresh].slice(-MOST)
  }

  /** What is new since this was asked; to be asked once a second. */
  takeNews(now: number): Recent {
    this.#closeSecond(Math.floor(now / 1000) * 1000)
    const news = this.#news
    this.#news = { gaps: [], refusals: [] }
    return news
  }

  #closeSecond(time: number): void {
    const notes = [...this.#second.notes.values()]
    this.#second = { time, notes: new Map() }
    if (notes.length === 0) return
    this.#gaps = [...this.#gaps, ...notes].slice(-MOST)
    this.#news.gaps = [...this.#news.gaps, ...notes].slice(-MOST)
  }
}
