import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { eventData } from './event.ts'

/** Calls the broker for Redis as it was built, without HTTP; prints how many events it stored a second. */

interface Built {
  readonly RedisBroker: new (
    target: unknown,
    settings: Record<string, unknown>,
    clock: unknown,
    report: (stage: string, error: Error) => void
  ) => {
    readonly log: {
      readonly up: boolean
      start(listener: Record<string, () => void>): Promise<void>
      append(events: readonly { topic: string; type: string; data: string }[]): Promise<unknown>
    }
  }
  readonly readRedisUrl: (url: string) => unknown
  readonly systemClock: unknown
}

const job = JSON.parse(process.argv[2]!) as {
  readonly url: string
  readonly batch: number
  /** How many batches are appended at a time. */
  readonly underWay: number
  readonly milliseconds: number
}

const built = await Promise.all(['broker/redis/broker', 'broker/redis/url', 'clock'].map(load))
const { RedisBroker, readRedisUrl, systemClock } = Object.assign({}, ...built) as Built
const broker = new RedisBroker(
  readRedisUrl(job.url),
  { KEY_PREFIX: 'appender:', RING_SIZE: 1000, RING_TTL: 86_400_000, SHARDS: 1, WAIT_REPLICAS: 0 },
  systemClock,
  (stage, error) => console.error(stage, error)
)
await new Promise<void>((resolve, reject) => {
  const ignore = () => {}
  const up = () => broker.log.up && resolve()
  broker.log.start({ event: ignore, tick: ignore, jump: ignore, gap: ignore, up }).catch(reject)
})

let stored = 0
let running = true
const loops = Array.from({ length: job.underWay }, async () => {
  while (running) {
    await broker.log.append(
      Array.from({ length: job.batch }, () => ({ topic: 'bench', type: 'message', data: eventData(0) }))
    )
    stored += job.batch
  }
})
await pause(job.milliseconds / 4)
const before = stored
const started = performance.now()
await pause(job.milliseconds)
console.log(Math.round(((stored - before) * 1000) / (performance.now() - started)))
running = false
await Promise.all(loops)
process.exit()

function load(module: string): Promise<object> {
  return import(pathToFileURL(resolve(`dist/${module}.js`)).href) as Promise<object>
}

function pause(milliseconds: number): Promise<void> {
  return new Promise(resolve => setTimeout(resolve, milliseconds))
}
