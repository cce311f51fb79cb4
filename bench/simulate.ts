import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import type { Publishers } from './load/publishers.ts'
import { QUOTES } from './load/quotes.ts'
import { missingRedis, redisUrl, startRedisCluster } from './load/redis.ts'
import type { Server } from './load/server.ts'
import type { Subscribers } from './load/subscribers.ts'
import { canPin, describeMachine, LOAD_CORE } from './machine.ts'
import { connected } from './metrics.ts'
import { peers } from './peers.ts'
import { readConstants, type Constants } from './scale/constants.ts'
import { plan } from './scale/model.ts'
import { show } from './scale/tables.ts'
import { Bench, KIB } from './scenario.ts'

/**
 * The shape of docs/scale.md's model with real instances: four of them on one Redis Cluster of three nodes, and few
 * clients. Says how far what is measured here is from the constants of the tables, and from the sum of the model.
 */

const INSTANCES = 4
const NODES = 3
/** Shared topics, as many as instances, and events of each a second. */
const SHARED_TOPICS = 4
const SHARED_RATE = 10
const BATCH = 50

const { values: options } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, markdown: { type: 'boolean', default: false } }
})

/** What took place while something ran: processor time in microseconds. */
interface Spent {
  readonly seconds: number
  readonly instances: number
  readonly redis: number
  readonly events: number
  readonly bytes: number
}

type Row = readonly [what: string, table: number | null, here: number, unit: string]

class Simulation {
  readonly #bench: Bench
  readonly #redis: readonly Server[]
  readonly #instances: readonly Server[]
  /** One connection to each instance. */
  readonly #publishers: readonly Publishers[]
  /** Those of each instance. */
  readonly #subscribers: readonly Subscribers[]
  readonly #clients: number
  #turn = 0

  private constructor(
    bench: Bench,
    redis: readonly Server[],
    instances: readonly Server[],
    publishers: readonly Publishers[]
  ) {
    this.#bench = bench
    this.#redis = redis
    this.#instances = instances
    this.#publishers = publishers
    this.#subscribers = instances.map(instance => bench.subscribers(instance))
    this.#clients = bench.size(4000, 400)
  }

  static async start(bench: Bench): Promise<Simulation> {
    const redis = (await startRedisCluster(NODES)).map(node => bench.onStop(node))
    const settings = { REDIS_URL: redisUrl(...redis), SHARDS: String(NODES) }
    const instances = await Promise.all(
      Array.from({ length: INSTANCES }, () => bench.start(settings, { collectable: true }))
    )
    await Promise.all(instances.map(connected))
    const publishers = await Promise.all(instances.map(instance => bench.publishers(instance, 1)))
    return new Simulation(bench, redis, instances, publishers)
  }

  /** All that is compared, by turns. */
  async run(constants: Constants): Promise<Row[]> {
    const of = (name: keyof Constants) => constants[name].value
    await this.#practise()
    const opening = await this.#open()
    const shared = await this.#during(() => this.#share(SHARED_RATE))
    const own = await this.#during(() => this.#toOwn())
    const unheard = await this.#during(() => this.#publish(index => `nobody/${index % 10_000}`))
    const heard = await this.#heardByAll()
    const still = await this.#during(() => this.#pause())
    const whole = await this.#during(() => Promise.all([this.#share(SHARED_RATE), this.#toOwn()]))
    const published = this.#batched
    const clients = this.#clients
    const sum = plan(
      {
        clients,
        topics: SHARED_TOPICS,
        shared: SHARED_RATE,
        own: (BATCH * this.#batches) / clients,
        descriptors: 20_000
      },
      constants
    )
    await Promise.all(this.#subscribers.map(each => each.close()))
    const plain = await this.#quotes(false)
    const gzip = await this.#quotes(true)
    const ticks = still.seconds * INSTANCES * NODES
    const announcement = (heard.redis - own.redis) / (published * (INSTANCES - 1))
    return [
      ['a delivery', of('delivery'), shared.instances / shared.events, 'µs'],
      ['a compressed delivery, to a plain one', of('gzipDelivery'), gzip.instances / plain.instances, '×'],
      ['bytes of an event', of('bytes'), plain.bytes / plain.events, 'B'],
      ['bytes compressed', of('gzipBytes'), gzip.bytes / gzip.events, 'B'],
      ['a stream with a topic of its own', of('stream'), opening.stream, 'KiB'],
      ['a process without streams', of('process'), opening.process, 'MiB'],
      ['opening a stream', of('opening'), opening.instances / clients, 'µs'],
      ['an event to one client', of('ownEvent'), own.instances / published, 'µs'],
      ['an event to nobody', of('publish'), unheard.instances / published, 'µs'],
      ['Redis: to store an event', of('redisEvent'), unheard.redis / published, 'µs'],
      ['Redis: an event to one client', null, own.redis / published, 'µs'],
      ['Redis: to announce it to one instance more', null, announcement, 'µs'],
      ['Redis: to open a stream with a topic of its own', null, opening.redis / clients, 'µs'],
      ['Redis: a tick of one instance in one shard, and what else waits', null, still.redis / ticks, 'µs'],
      ['an instance at rest', null, (still.instances / INSTANCES / still.seconds / 1e6) * 100, '% of a core'],
      ['all of it: deliveries/s', sum.deliveries, whole.events / this.#seconds, ''],
      ['all of it: cores of the instances', sum.cores, whole.instances / this.#seconds / 1e6, ''],
      ['all of it: cores of Redis', sum.redisCores, whole.redis / this.#seconds / 1e6, '']
    ]
  }

  get #seconds(): number {
    return this.#bench.size(8, 0.8)
  }

  /** A second. */
  get #batches(): number {
    return this.#bench.size(100, 5)
  }

  /** Events that are published in batches while something is measured. */
  get #batched(): number {
    return Math.round(this.#seconds * this.#batches) * BATCH
  }

  /** Until what comes later is compiled. */
  async #practise(): Promise<void> {
    await this.#openOn(this.#bench.size(400, 100), index => [`practice/${index}`, 'practice'])
    for (let times = this.#bench.size(4, 1); times > 0; times--)
      await this.#publish(index => (index % 2 === 0 ? 'practice' : `practice/${index % 100}`))
    await this.#quiet()
    await Promise.all(this.#subscribers.map(each => each.close()))
  }

  /** Opens all streams; each has a topic that others have too, and one of its own. */
  async #open() {
    const memory = () => total(this.#instances.map(instance => instance.restingMemory()))
    const before = await memory()
    const spent = await this.#during(() =>
      this.#openOn(this.#clients, index => [sharedTopic(index), ownTopic(index)])
    )
    const grown = (await memory()) - before
    return { ...spent, process: before / INSTANCES / KIB ** 2, stream: grown / this.#clients / KIB }
  }

  /** Neighbours are on different instances, and so are those who listen to one topic. */
  async #openOn(clients: number, topicsOf: (index: number) => string[], compressed = false): Promise<void> {
    await Promise.all(
      this.#subscribers.map((subscribers, instance) =>
        subscribers.open(clients / INSTANCES, {
          compressed,
          each: index => ({ topics: topicsOf(index * INSTANCES + instance) })
        })
      )
    )
    const refused = this.#subscribers.find(each => each.refused > 0)
    if (refused) throw new Error(`streams were refused: ${refused.refusal}`)
  }

  /** So many events a second of each shared topic, one at a time. */
  async #share(rate: number): Promise<void> {
    const expected =
      this.#events + Math.round(SHARED_TOPICS * rate * this.#seconds) * (this.#clients / SHARED_TOPICS)
    let next = 0
    await this.#publishers[0]!.paced(SHARED_TOPICS * rate, this.#seconds, () =>
      this.#inTurn().publish(1, sharedTopic(next++))
    )
    await this.#received(expected)
  }

  async #toOwn(): Promise<void> {
    await this.#publish(index => ownTopic((index * 7919) % this.#clients))
    await this.#quiet()
  }

  /** One stream on each instance has the topic that all of this goes to. */
  async #heardByAll(): Promise<Spent> {
    await this.#openOn(INSTANCES, () => ['all'])
    return this.#during(async () => {
      await this.#publish(() => 'all')
      await this.#quiet()
    })
  }

  /** Batches, evenly, to the instances in turn. */
  async #publish(topicOf: (index: number) => string): Promise<void> {
    let next = 0
    await this.#publishers[0]!.paced(this.#batches, this.#seconds, () =>
      this.#inTurn().publishBatch(BATCH, () => topicOf(next++))
    )
    await Promise.all(this.#publishers.map(each => each.settled()))
  }

  /** What is published as it was recorded, to a quarter of the clients, with nothing else there. */
  async #quotes(compressed: boolean): Promise<Spent> {
    const clients = this.#clients / 4
    await this.#openOn(clients, () => ['quotes'], compressed)
    const rate = SHARED_TOPICS * SHARED_RATE
    const { publish } = this.#bench.peer
    const send = async () => {
      let next = 0
      await this.#publishers[0]!.paced(rate, this.#seconds, () => {
        const [connection] = this.#inTurn().connections
        connection!.send(publish(QUOTES[next++ % QUOTES.length]!, 'quotes?type=quote'), 1)
      })
      await this.#quiet()
    }
    await send() // a new audience compresses once it has been written to for a while
    const spent = await this.#during(send)
    await Promise.all(this.#subscribers.map(each => each.close()))
    // they have no marker by which they could be counted
    return { ...spent, events: Math.round(rate * this.#seconds) * clients }
  }

  #pause(): Promise<void> {
    return sleep(this.#seconds * 1000)
  }

  #inTurn(): Publishers {
    return this.#publishers[this.#turn++ % INSTANCES]!
  }

  get #events(): number {
    return add(this.#subscribers.map(({ events }) => events))
  }

  get #bytes(): number {
    return add(this.#subscribers.map(({ bytes }) => bytes))
  }

  async #received(events: number): Promise<void> {
    for (let tries = 0; this.#events < events; tries++) {
      if (tries === 2000) throw new Error(`${events - this.#events} events did not come`)
      await sleep(5)
    }
  }

  /** Waits until nothing comes any more. */
  async #quiet(): Promise<void> {
    for (let before = -1; before < this.#bytes;) {
      before = this.#bytes
      await sleep(100)
    }
  }

  async #during(run: () => Promise<unknown>): Promise<Spent> {
    const cpu = (servers: readonly Server[]) => add(servers.map(server => server.preciseCpu()))
    const now = () => ({
      seconds: performance.now() / 1000,
      instances: cpu(this.#instances),
      redis: cpu(this.#redis),
      events: this.#events,
      bytes: this.#bytes
    })
    const before = now()
    await run()
    const after = now()
    return {
      seconds: after.seconds - before.seconds,
      instances: after.instances - before.instances,
      redis: after.redis - before.redis,
      events: after.events - before.events,
      bytes: after.bytes - before.bytes
    }
  }
}

function sharedTopic(index: number): string {
  // not the index alone: neighbours are on different instances, and each topic must be on all of them
  return `shared/${Math.floor(index / INSTANCES) % SHARED_TOPICS}`
}

function ownTopic(index: number): string {
  return `users/${index}`
}

function add(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0)
}

async function total(values: readonly Promise<number>[]): Promise<number> {
  return add(await Promise.all(values))
}

function print(rows: readonly Row[]): void {
  const cells = rows.map(([what, table, here, unit]) => [
    what,
    table === null ? '–' : `${show(table)} ${unit}`.trim(),
    `${show(here)} ${unit}`.trim(),
    table === null ? '–' : `${(here / table).toFixed(2)}×`
  ])
  const table = [['', 'table', 'here', 'here ÷ table'], ...cells]
  const lines = options.markdown ? markdown(table) : table.map(row => row.join('\t'))
  console.log(lines.join('\n'))
}

function markdown(table: readonly string[][]): string[] {
  const lines = table.map(row => `| ${row.join(' | ')} |`)
  return [lines[0]!, '| --- | ---: | ---: | ---: |', ...lines.slice(1)]
}

const missing = missingRedis()
if (missing !== null) throw new Error(`install ${missing}`)
// the servers go to the other core
if (canPin) spawnSync('taskset', ['-a', '-cp', String(LOAD_CORE), String(process.pid)])
const page = (name: string) => readFileSync(`docs/${name}.md`, 'utf8')
const constants = readConstants({ performance: page('performance'), stores: page('stores') })
const bench = new Bench(
  peers.find(({ name }) => name === 'ringside')!,
  options.quick,
  {}
)
try {
  const { cpu, date } = describeMachine()
  const rows = await (await Simulation.start(bench)).run(constants)
  console.log(
    `${cpu}; ${date}; ${INSTANCES} instances, a Redis Cluster of ${NODES} nodes, ${bench.size(4000, 400)} clients${options.quick ? '; QUICK: too small to quote' : ''}\n`
  )
  print(rows)
} finally {
  await bench.close()
}
