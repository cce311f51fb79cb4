import type { Test } from 'tap'
import type { StoredEvent } from '../../src/event.ts'
import { ask, build, metricsOf, post, type Address, type TestServer } from './app.ts'
import { eventually } from './inbox.ts'
import { listen, type Reader } from './reader.ts'
import { startRedis, type RedisServer, type RedisServerOptions } from './redis-server.ts'
import type { Frame } from './sse-parser.ts'

/** A Redis that goes when the test does. */
export async function redisFor(t: Test, options?: RedisServerOptions): Promise<RedisServer> {
  const redis = await startRedis(options)
  t.teardown(() => redis.stop())
  return redis
}

/** An instance on a Redis, as soon as it is ready. */
export async function instance(
  t: Test,
  redisUrl: string,
  env: Record<string, string> = {}
): Promise<TestServer> {
  const server = await build(t, { REDIS_URL: redisUrl, RETRY: '50ms', ...env })
  await ready(server)
  return server
}

export async function instances(
  t: Test,
  redisUrl: string,
  count: number,
  env: Record<string, string> = {}
): Promise<TestServer[]> {
  return Promise.all(Array.from({ length: count }, () => instance(t, redisUrl, env)))
}

/** Resolves once an instance serves; the answer is how long it took, in milliseconds. */
export async function ready(server: Address): Promise<number> {
  const started = performance.now()
  await eventually(
    () => ask(server, '/readyz'),
    ({ status }) => status === 200,
    'an instance that is ready'
  )
  return performance.now() - started
}

/** Resolves once an instance says that it can't serve, by all the ways that it has; with how long it took. */
export async function unready(server: Address): Promise<number> {
  const started = performance.now()
  await eventually(
    () => ask(server, '/readyz'),
    ({ status }) => status === 503,
    'an instance that is not ready'
  )
  await eventually(
    () => metricsOf(server),
    metrics => metrics.get('ringside_broker_up') === 0,
    'a broker that is down'
  )
  return performance.now() - started
}

/** Publishes again and again under one key until it is stored: what a careful publisher does. */
export async function publishSurely(
  server: Pick<Address, 'port'>,
  topic: string,
  data: string,
  key: string
): Promise<string> {
  const answer = await eventually(
    () => post(server, `/events/${topic}`, data, { 'idempotency-key': key }),
    ({ status }) => status !== 503,
    `${data} to be stored`
  )
  if (answer.status !== 201) throw new Error(`not published: ${answer.status} ${answer.text}`)
  return answer.json()['id'] as string
}

/** A publisher that numbers what it publishes on some topics in turn, one after the other, until it is told to stop. */
export class Stream {
  readonly stored: { readonly topic: string; readonly data: string }[] = []
  refused = 0
  readonly #done: Promise<void>
  #stopped = false

  constructor(servers: readonly Address[], topics: readonly string[]) {
    this.#done = this.#run(servers, topics)
  }

  async #run(servers: readonly Address[], topics: readonly string[]): Promise<void> {
    const run = Math.random().toString(36).slice(2)
    for (let number = 0; !this.#stopped; number++) {
      const topic = topics[number % topics.length]!
      const path = `/events/${topic}`
      // a new server for each try: it is any instance that a publisher reaches
      for (let attempt = number; ; attempt++) {
        const { status, text } = await post(servers[attempt % servers.length]!, path, String(number), {
          'idempotency-key': `${run}-${number}`
        })
        if (status === 201) break
        if (status !== 503) throw new Error(`not published: ${status} ${text}`)
        this.refused++
        await new Promise(resolve => setTimeout(resolve, 5))
      }
      this.stored.push({ topic, data: String(number) })
    }
  }

  /** Resolves once so many are stored beyond those of now. */
  async more(count: number): Promise<void> {
    const goal = this.stored.length + count
    await eventually(
      () => this.stored.length,
      length => length >= goal,
      `${count} more events to be stored`
    )
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#done
  }
}

/** What a reader was told of, in order: the data of events, and the reasons of gaps in angle brackets. */
export function told({ frames }: Pick<Reader, 'frames'>): string[] {
  return frames.all.flatMap(({ event, data }) => {
    if (event === 'gap') return [`<${(JSON.parse(data!) as { reason: string }).reason}>`]
    return data === undefined || ['cursor', 'heartbeat', 'stale'].includes(event ?? '') ? [] : [data]
  })
}

/** Resolves with all that a reader was told once the last of it is this. */
export async function toldUntil(reader: Pick<Reader, 'frames'>, last: string): Promise<string[]> {
  await reader.frames.until(() => told(reader).includes(last), `${last}`)
  return told(reader)
}

/** Whether a stream still is what it was: one answer of 200 that nobody has ended. */
export async function isOpen(reader: Reader): Promise<boolean> {
  const open = await Promise.race([
    reader.ended,
    new Promise<'open'>(resolve => setImmediate(() => resolve('open')))
  ])
  return reader.status === 200 && open === 'open'
}

/** The id that a reader would send when it reconnects now. */
export function cursorOf({ frames }: Pick<Reader, 'frames'>): string {
  return frames.all.findLast((frame): frame is Frame & { id: string } => frame.id !== undefined)!.id
}

/** Follows a topic from one instance to another, as a client that is cut does, and keeps what it is told. */
export async function resume(
  t: Test,
  server: Address,
  path: string,
  from: Pick<Reader, 'frames'>
): Promise<Reader> {
  return listen(t, server, path, { accept: 'text/event-stream', 'last-event-id': cursorOf(from) })
}

/** What a broker hands over, for tests below HTTP. */
export function describe(event: StoredEvent): string {
  return `${event.topic} ${event.data.toString()}`
}
