import { connect, type Socket } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { ask, metricsOf, post, type Address } from '../support/app.ts'
import { eventually, inTime } from '../support/inbox.ts'
import { exitOf, serve } from '../support/process.ts'
import { redisFor } from '../support/redis-system.ts'
import { StrictParser, type Frame } from '../support/sse-parser.ts'

/** How many clients. One instance has all of them for a while, so that its descriptors must allow them. */
const WANTED = Number(process.env['DRAIN_CLIENTS'] ?? 5000)
const descriptors = descriptorsOf()
const CLIENTS = Math.min(WANTED, Math.floor(Math.max(descriptors - 1000, descriptors / 2)) - 50)

const DRAIN_MS = 6000

/** How late anything may be, besides what a machine with other things to do takes, in milliseconds. */
const LATE_MS = 2000

/** How many of them come first at once: less than what a listener lets wait. */
const AT_ONCE = 250

const TOPICS = 50

/** How often each topic has another event, in milliseconds; they take turns, a few at a time. */
const PACE_MS = 1000
const BATCH = 5

t.setTimeout(400_000)

t.test(`${CLIENTS} clients on two instances, one of which is restarted`, async t => {
  if (CLIENTS < WANTED) t.comment(`${descriptors} descriptors are allowed: ${CLIENTS} clients, not ${WANTED}`)
  const stalls = monitorEventLoopDelay()
  stalls.enable()
  const redis = await redisFor(t)
  const env = { REDIS_URL: redis.url, DRAIN: `${DRAIN_MS}ms`, RETRY: '2s' }
  const [first, second] = await Promise.all([serve(t, env), serve(t, env)])
  const instances: Address[] = [first, second]
  const balancer = new Balancer(instances)
  t.teardown(() => balancer.stop())
  const clients: Client[] = []
  t.teardown(() => clients.forEach(client => client.close()))
  while (clients.length < CLIENTS) {
    const some = Array.from(
      { length: Math.min(AT_ONCE, CLIENTS - clients.length) },
      (_, index) => new Client(balancer, (clients.length + index) % TOPICS)
    )
    clients.push(...some)
    await Promise.all(some.map(({ opened }) => opened))
  }
  const publisher = new Publisher(instances)
  const moving = clients.filter(({ port }) => port === first.port)
  const staying = clients.filter(({ port }) => port === second.port)
  t.ok(moving.length > CLIENTS / 3 && staying.length > CLIENTS / 3, 'some on each')
  await eventually(
    () => clients.every(({ last }) => last >= 0),
    all => all,
    'an event for each'
  )

  await lagOf(second)
  stalls.reset()
  const started = performance.now()
  const since = (time: number | undefined) => (time ?? Infinity) - started
  first.child.kill('SIGTERM')
  t.strictSame(await exitOf(first), { code: 0, signal: null })
  t.equal(first.stderr(), '')
  const again = await serve(t, env)
  instances[0] = again
  t.comment(`stopped and started again after ${Math.round(since(performance.now()))} ms`)
  await eventually(
    () => moving.filter(({ back }) => back === undefined).length,
    away => away === 0,
    'all of them to be back'
  )

  // what was due while a process got no time comes at once afterwards
  const lag = Math.max(...(await Promise.all([second, again].map(lagOf))))
  const stalled = Math.round(lag + stalls.max / 1e6)
  const late = LATE_MS + 2 * stalled
  t.comment(`nothing happened for ${stalled} ms`)

  t.test('says goodbye to each of its clients within DRAIN, and to no other', async t => {
    const told = moving.map(({ goodbyes }) => goodbyes[0] ?? Infinity)
    t.ok(since(Math.max(...told)) < DRAIN_MS + late, `the last after ${since(Math.max(...told))} ms`)
    t.strictSame(
      staying.filter(({ connects }) => connects !== 1),
      []
    )
  })

  t.test('has each of them back when it said, on either instance', async t => {
    const waits = moving.map(({ back, goodbyes, retries }) => back! - goodbyes[0]! - retries[0]!)
    t.ok(Math.max(...waits) < late, `the latest ${Math.round(Math.max(...waits))} ms after its time`)
    const longest = Math.max(...moving.map(({ retries }) => retries[0]!))
    const last = since(Math.max(...moving.map(({ back }) => back!)))
    t.ok(
      last < DRAIN_MS + longest + late,
      `the last after ${Math.round(last)} ms; the longest retry is ${longest} ms`
    )
    const onNew = moving.filter(({ port }) => port === again.port).length
    t.comment(`${moving.length} came back, ${onNew} of them to the new process`)
    t.equal((await metricsOf(again)).get('ringside_connections{transport="sse"}') ?? 0, onNew)
  })

  t.test('has them back evenly: no second has more than three times the mean', async t => {
    const times = moving.map(({ back }) => since(back)).sort((a, b) => a - b)
    const width = 1000 + stalled
    const most = Math.max(
      ...times.map((from, index) => times.findLastIndex(time => time < from + width) - index + 1)
    )
    const length = times.at(-1)! - times[0]!
    const mean = (moving.length * width) / length
    t.ok(length > DRAIN_MS - late, `they come over ${Math.round(length)} ms`)
    t.ok(most <= 3 * mean, `at most ${most} within ${width} ms; the mean is ${Math.round(mean)}`)
  })

  t.test('loses and doubles no event, and announces no gap', async t => {
    await publisher.stop()
    await eventually(
      () => clients.filter(({ last }) => last !== publisher.last).length,
      behind => behind === 0,
      'the last event'
    )
    t.ok(publisher.last > DRAIN_MS / PACE_MS, `${publisher.last + 1} events on each of ${TOPICS} topics`)
    const wrong = clients.flatMap(client => client.wrong)
    t.strictSame(wrong.slice(0, 5), [], `${wrong.length} wrong`)
  })
})

/** For how long an instance has got no time since it was last asked, at most, in milliseconds. */
async function lagOf(instance: Address): Promise<number> {
  return (await metricsOf(instance)).get('nodejs_eventloop_lag_max_seconds')! * 1000
}

/** What stands before the instances: it sends whoever comes to one that says that it is ready. */
class Balancer {
  readonly #instances: readonly Address[]
  #ready: readonly Address[]
  #stopped = false
  readonly #done: Promise<void>

  constructor(instances: readonly Address[]) {
    this.#instances = instances
    this.#ready = instances
    this.#done = this.#watch()
  }

  choose(): number {
    return this.#ready[Math.floor(Math.random() * this.#ready.length)]!.port
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#done
  }

  async #watch(): Promise<void> {
    while (!this.#stopped) {
      const instances = [...this.#instances]
      const statuses = await Promise.all(
        instances.map(instance => ask(instance, '/readyz').catch(() => ({ status: 0 })))
      )
      this.#ready = instances.filter((_, index) => statuses[index]!.status === 200)
      await delay(100)
    }
  }
}

/** Publishes the next number on each topic, again and again, each until it is stored. */
class Publisher {
  /** The number that was stored last, on all topics. */
  last = -1
  readonly #instances: readonly Address[]
  readonly #done: Promise<void>
  #stopped = false

  constructor(instances: readonly Address[]) {
    this.#instances = instances
    this.#done = this.#run()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#done
  }

  async #run(): Promise<void> {
    const started = performance.now()
    for (let number = 0; !this.#stopped; number++) {
      for (let topic = 0; topic < TOPICS; topic += BATCH) {
        const due = started + (number + topic / TOPICS) * PACE_MS
        await delay(Math.max(0, due - performance.now()))
        await this.#publish(number, topic)
      }
      this.last = number
    }
  }

  async #publish(number: number, first: number): Promise<void> {
    const events = Array.from({ length: BATCH }, (_, index) => ({
      topic: `drain/${first + index}`,
      data: number
    }))
    const headers = { 'content-type': 'application/json', 'idempotency-key': `${number}-${first}` }
    for (let attempt = number; ; attempt++) {
      const instance = this.#instances[attempt % this.#instances.length]!
      // an instance that is not there is none that says no
      const answer = await post(instance, '/events', JSON.stringify(events), headers).catch(() => null)
      if (answer?.status === 201) return
      if (answer && answer.status !== 503) throw new Error(`not published: ${answer.status} ${answer.text}`)
      await delay(20)
    }
  }
}

/** An EventSource, as cheap as it can be: a socket. It comes back when it was told to, with its last id. */
class Client {
  readonly wrong: string[] = []
  /** The number that it got last. */
  last = -1
  connects = 0
  port = 0
  /** When it was told goodbye, and for how many milliseconds it shall wait. */
  readonly goodbyes: number[] = []
  readonly retries: number[] = []
  /** When it was served again. */
  back: number | undefined
  readonly opened: Promise<void>
  readonly #balancer: Balancer
  readonly #topic: number
  #id: string | undefined
  #retry = 1000
  #socket!: Socket
  #closed = false
  #opened = () => {}

  constructor(balancer: Balancer, topic: number) {
    this.#balancer = balancer
    this.#topic = topic
    this.opened = inTime(new Promise(resolve => (this.#opened = resolve)), 'a stream')
    this.#connect()
  }

  close(): void {
    this.#closed = true
    this.#socket.destroy()
  }

  #connect(): void {
    if (this.#closed) return
    this.connects++
    this.port = this.#balancer.choose()
    const parser = new StrictParser()
    const body = new ChunkedBody()
    const socket = connect(this.port, '127.0.0.1')
    this.#socket = socket
    const resume = this.#id === undefined ? '' : `Last-Event-ID: ${this.#id}\r\n`
    socket.write(
      `GET /events/drain/${this.#topic} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n${resume}\r\n`
    )
    socket.on('error', () => {}) // 'close' follows
    socket.on('data', (bytes: Buffer) => {
      for (const part of body.push(bytes)) for (const frame of parser.push(part)) this.#take(frame)
      if (body.ended) socket.end()
    })
    socket.on('close', () => {
      if (!this.#closed && body.begun && !body.ended) this.wrong.push('a stream without an end')
      setTimeout(() => this.#connect(), this.#retry)
    })
  }

  #take({ id, event, data, retry }: Frame): void {
    if (id !== undefined) this.#id = id
    if (retry !== undefined) this.#retry = retry
    if (event === 'cursor') {
      this.#opened()
      if (this.connects > 1) this.back ??= performance.now()
    } else if (event === 'goodbye') {
      this.goodbyes.push(performance.now())
      this.retries.push(retry!)
    } else if (event !== undefined) {
      this.wrong.push(`${event} ${data}`)
    } else if (data !== undefined) {
      const number = Number(data)
      if (this.last >= 0 && number !== this.last + 1) this.wrong.push(`${data} after ${this.last}`)
      this.last = number
    }
  }
}

/** The body of one answer in chunks (RFC 9112, section 7.1). */
class ChunkedBody {
  begun = false
  ended = false
  #rest: Buffer = Buffer.alloc(0)

  push(bytes: Buffer): Buffer[] {
    this.#rest = this.#rest.length > 0 ? Buffer.concat([this.#rest, bytes]) : bytes
    if (!this.begun) {
      const head = this.#rest.indexOf('\r\n\r\n')
      if (head < 0) return []
      this.begun = true
      this.#rest = this.#rest.subarray(head + 4)
    }
    const parts: Buffer[] = []
    for (;;) {
      const line = this.#rest.indexOf('\r\n')
      if (line < 0) return parts
      const size = parseInt(this.#rest.toString('latin1', 0, line), 16)
      const end = line + 2 + size + 2
      if (this.#rest.length < end) return parts
      if (size === 0) this.ended = true
      else parts.push(this.#rest.subarray(line + 2, end - 2))
      this.#rest = this.#rest.subarray(end)
    }
  }
}

/** How many descriptors a process may have here: Node takes what it can. */
function descriptorsOf(): number {
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft: number | string } } }
  return Number(report.userLimits?.open_files?.soft) || Infinity
}
