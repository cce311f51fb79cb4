/** Two built instances on one Redis, each on a port of its own for good, and who publishes through a proxy. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Test } from 'tap'
import { ask, metricsOf, post, type Address } from '../support/app.ts'
import { exitOf, serve, type Run } from '../support/process.ts'
import { freePort } from '../support/redis-server.ts'
import { ready, redisFor } from '../support/redis-system.ts'
import { bearer, SECRET, tokenFor } from '../support/tokens.ts'
import { TOPIC } from './crowd.ts'

/** An origin that may ask, and isn't the proxy's. */
export const OTHER_ORIGIN = 'https://app.example'

export class Fleet {
  readonly instances: readonly Instance[]

  constructor(instances: readonly Instance[]) {
    this.instances = instances
  }

  /** How many streams and WebSockets they have together. */
  async connections(): Promise<number> {
    const all = await Promise.all(this.instances.map(metricsOf))
    return all
      .flatMap(metrics => [...metrics].filter(([name]) => name.startsWith('ringside_connections{')))
      .reduce((sum, [, count]) => sum + count, 0)
  }
}

export async function startFleet(t: Test, env: Record<string, string> = {}): Promise<Fleet> {
  const redis = await redisFor(t)
  const all = {
    REDIS_URL: redis.url,
    JWT_SECRET: SECRET,
    ANONYMOUS_SUBSCRIBE: TOPIC,
    CORS_ORIGIN: OTHER_ORIGIN,
    TRUST_PROXY: '127.0.0.1',
    // all of them have one address
    CONNECT_RATE: '0',
    MAX_CONNECTIONS_PER_CLIENT: '0',
    ...env
  }
  const instances = [await freePort(), await freePort()].map(port => new Instance(t, port, all))
  await Promise.all(instances.map(each => each.start()))
  return new Fleet(instances)
}

class Instance implements Address {
  readonly port: number
  readonly #t: Test
  readonly #env: Record<string, string>
  #run: Run | undefined

  constructor(t: Test, port: number, env: Record<string, string>) {
    this.#t = t
    this.port = port
    this.#env = { ...env, PORT: String(port) }
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** Resolves once it is ready. */
  async start(): Promise<void> {
    this.#run = await serve(this.#t, this.#env)
    await ready(this)
  }

  /** Ends it by a signal; resolves when it has ended. */
  async end(signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
    this.#run!.child.kill(signal)
    await exitOf(this.#run!)
  }
}

/** Publishes numbers, one after the other, each again until it is stored. */
export class Publisher {
  /** How many were stored. */
  count = 0
  readonly #proxy: Address
  readonly #paceMs: number
  readonly #headers: Promise<Record<string, string>>
  #stopped = false
  #run: Promise<void> | undefined

  constructor(proxy: Address, paceMs: number) {
    this.#proxy = proxy
    this.#paceMs = paceMs
    this.#headers = tokenFor({ publish: [TOPIC] }).then(bearer)
  }

  start(): void {
    this.#run = this.#all()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#run
  }

  /** Publishes the next one; resolves once it is stored, or nobody wants that any more. */
  async publish(): Promise<number> {
    const number = this.count + 1
    const headers = { ...(await this.#headers), 'Idempotency-Key': `number-${number}` }
    while (!this.#stopped) {
      const status = await post(this.#proxy, `/events/${TOPIC}`, String(number), headers).then(
        answer => answer.status,
        () => 0
      )
      if (status === 201) return (this.count = number)
      if (status >= 400 && status < 500) throw new Error(`a publish was answered ${status}`)
      await delay(this.#paceMs)
    }
    return this.count
  }

  async #all(): Promise<void> {
    while (!this.#stopped) {
      await this.publish()
      await delay(this.#paceMs)
    }
  }
}

/** What a proxy says on `path`, as an EventSource of a page of another origin would ask, or as something else. */
export function askThrough(proxy: Address, path: string, accept: string) {
  return ask(proxy, path, { headers: { Accept: accept, Origin: OTHER_ORIGIN } })
}
