import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

/** Fills a store on disk by the event log as it was built, without HTTP and without flushes, and closes it. */

interface Built {
  readonly systemClock: unknown
  readonly DiskBroker: {
    open(
      folder: string,
      settings: object,
      clock: unknown
    ): Promise<{
      log: { append(events: readonly object[]): Promise<readonly { outcome: string }[]> }
      close(): Promise<void>
    }>
  }
}

const BATCH = 250
const UNDER_WAY = 8

const job = JSON.parse(process.argv[2]!) as {
  readonly folder: string
  readonly topics: number
  readonly events: number
  /** How many bytes of data each event has. */
  readonly size: number
}

const modules = ['broker/disk/broker', 'clock'].map(
  module => import(pathToFileURL(resolve(`dist/${module}.js`)).href)
)
const { DiskBroker, systemClock } = Object.assign({}, ...(await Promise.all(modules))) as Built
const settings = {
  ...{ RING_SIZE: 1_000_000, RING_TTL: 86_400_000, FSYNC: 'off' },
  MAX_STORE_BYTES: 100 * 2 ** 30
}
const broker = await DiskBroker.open(job.folder, settings, systemClock)
const data = JSON.stringify('.'.repeat(job.size - 2))

let next = 0
const loops = Array.from({ length: UNDER_WAY }, async () => {
  while (next < job.events) {
    const count = Math.min(BATCH, job.events - next)
    const batch = Array.from({ length: count }, () => event(next++))
    const outcomes = await broker.log.append(batch)
    if (outcomes.some(({ outcome }) => outcome !== 'stored')) throw new Error(JSON.stringify(outcomes[0]))
  }
})
await Promise.all(loops)
await broker.close()

/** A hundred topics to a wildcard. */
function event(number: number) {
  const topic = number % job.topics
  return { topic: `bench/${Math.floor(topic / 100)}/${topic % 100}`, type: 'message', data }
}
