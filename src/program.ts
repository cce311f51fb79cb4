import { Type } from 'typebox'
import type { Append } from './broker/event-log.ts'
import { END, formatCursor, KEY_PATTERN, TYPE_PATTERN, type Data } from './event.ts'
import { JsonInput } from './input.ts'
import { wrong } from './problem.ts'
import { checkEnd, idOf, type Publisher } from './publisher.ts'
import { Round } from './round.ts'

/** What the program itself publishes. */
export interface EventToPublish {
  /** The event's name; `message` when there is none. */
  readonly type?: string
  /** Text and bytes are kept as they are; anything else becomes compact JSON. */
  readonly data: unknown
  /** Seconds this event may be replayed. */
  readonly ttl?: number
  /** Whether it ends its topic: then it is of the type `end`, and nothing is published on the topic after it. */
  readonly end?: boolean
  /** The same key again within 10 minutes stores nothing, and gives the first id. */
  readonly key?: string
}

/** What one request of the program's after the other publishes goes to subscribers in one write. */
const round = new Round()

const Published = Type.Object({
  type: Type.Optional(Type.String({ pattern: TYPE_PATTERN })),
  ttl: Type.Optional(Type.Integer({ minimum: 1, maximum: 315_360_000 })),
  end: Type.Optional(Type.Boolean()),
  key: Type.Optional(Type.String({ pattern: KEY_PATTERN }))
})

/**
 * Publishes for the program, which may write on every topic that belongs to no feed, and has no rate. Resolves with the
 * event's id once it is stored. Rejects as `Publisher.publish` does.
 */
export async function publishEvent(
  publisher: Publisher,
  topic: string,
  event: EventToPublish
): Promise<string> {
  const append = toAppend(topic, event)
  await round.end()
  const [appended] = await publisher.publish([append], { source: 'events', ends: event.end })
  return formatCursor(idOf(appended!))
}

/** The event as the log takes it. Throws a `Problem` where a publisher over HTTP would be refused. */
function toAppend(topic: string, event: EventToPublish): Append {
  const { type, ttl, key, end } = new JsonInput(event).as(Published)
  if (end) checkEnd({ type, ttl })
  return {
    topic,
    type: end ? END : (type ?? 'message'),
    data: toData(event.data),
    ...(ttl !== undefined && { ttl }),
    ...(key !== undefined && { key })
  }
}

function toData(value: unknown): Data {
  if (typeof value === 'string') return value
  // a copy: whose the bytes are may use them again
  if (value instanceof Uint8Array) return Buffer.from(value)
  try {
    const json = JSON.stringify(value) as string | undefined
    if (json !== undefined) return json
  } catch (error) {
    throw wrong('malformed', 'data', `is not JSON: ${(error as Error).message}`)
  }
  throw wrong('malformed', 'data', `is not JSON: ${typeof value}`)
}
