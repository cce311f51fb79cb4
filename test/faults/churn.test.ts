import { request, type ClientRequest } from 'node:http'
import t from 'tap'
import { metricsOf, publishAll, type Address } from '../support/app.ts'
import { bodyOf, isGarbled } from '../support/gunzip.ts'
import { inTime } from '../support/inbox.ts'
import { serve } from '../support/process.ts'
import { randomFrom } from '../support/random.ts'
import { StrictParser, type Frame } from '../support/sse-parser.ts'

/** For how long events are published, in seconds. */
const SECONDS = Number(process.env['CHURN_SECONDS'] ?? 20)
const SUBSCRIBERS = 100
const PER_SECOND = 200
const BATCH = 10
const SEED = Number(process.env['CHURN_SEED'] ?? 1)

const TOPICS = ['alpha', 'beta', 'group/1', 'group/2', 'group/3']
const SUBSCRIPTIONS: Record<string, (topic: string) => boolean> = {
  'topic=alpha': topic => topic === 'alpha',
  'topic=group/*': topic => topic.startsWith('group/'),
  'topic=alpha&topic=beta&topic=group/2': topic => ['alpha', 'beta', 'group/2'].includes(topic),
  'topic=group/*&topic=group/1&topic=alpha': topic => topic === 'alpha' || topic.startsWith('group/')
}

interface Published {
  readonly id: string
  readonly topic: string
}

/** Drops its connection at random moments, and comes back with the last id that it has got. */
class Dropper {
  readonly ids: string[] = []
  readonly wrong: string[] = []
  readonly query: string
  readonly wants: (topic: string) => boolean
  start: string | undefined
  drops = 0
  readonly #server: Address
  /** Every second one reads a compressed stream. */
  readonly #coding: string
  readonly #random: () => number
  #cursor: string | undefined
  #request: ClientRequest | undefined
  #stay = false
  #closed = false
  #changed = () => {}

  constructor(server: Address, number: number) {
    const queries = Object.keys(SUBSCRIPTIONS)
    this.query = queries[number % queries.length]!
    this.wants = SUBSCRIPTIONS[this.query]!
    this.#server = server
    this.#coding = number % 2 === 0 ? 'identity' : 'gzip'
    this.#random = randomFrom(SEED * 1000 + number)
    this.#connect()
  }

  /** Drops no more. */
  stay(): void {
    this.#stay = true
  }

  close(): void {
    this.#closed = true
    this.#request?.destroy()
  }

  until(condition: () => boolean, what: string): Promise<void> {
    const met = new Promise<void>(resolve => {
      this.#changed = () => condition() && resolve()
      this.#changed()
    })
    return inTime(met, what, () => [this.query, this.ids.length, this.wrong.slice(0, 3)])
  }

  #connect(): void {
    const headers = {
      'accept-encoding': this.#coding,
      ...(this.#cursor !== undefined && { 'last-event-id': this.#cursor })
    }
    const path = `/events?${this.query}`
    const sent = request({ host: '127.0.0.1', port: this.#server.port, path, headers, agent: false })
    this.#request = sent
    const parser = new StrictParser()
    // at some byte of its stream, or at some moment of its life, or before its first event
    let bytesLeft = this.#random() < 0.5 ? Math.floor(this.#random() * 20_000) : Infinity
    const lifetime = bytesLeft === Infinity ? this.#random() * 1500 : 60_000
    const timer = setTimeout(() => this.#drop(sent), lifetime)
    let dropped = false
    const again = () => {
      clearTimeout(timer)
      if (dropped) return
      dropped = true
      if (this.#closed) return
      this.drops++
      setImmediate(() => this.#connect())
    }
    sent.on('error', again)
    sent.on('close', again)
    sent.on('response', response => {
      if (response.statusCode !== 200) this.wrong.push(`status ${response.statusCode}`)
      const coding = response.headers['content-encoding'] ?? 'identity'
      if (coding !== this.#coding) this.wrong.push(`coding ${coding}`)
      const body = bodyOf(response)
      body.on('error', error => {
        if (isGarbled(error)) this.wrong.push(error.message)
      })
      body.on('data', (chunk: Buffer) => {
        if (dropped || sent.destroyed) return
        const taken = this.#stay ? chunk : chunk.subarray(0, bytesLeft)
        for (const frame of parser.push(taken)) this.#take(frame)
        bytesLeft -= chunk.length
        if (bytesLeft <= 0) this.#drop(sent)
      })
    })
    sent.end()
  }

  #drop(sent: ClientRequest): void {
    if (!this.#stay) sent.destroy()
  }

  #take({ id, event, data }: Frame): void {
    if (event === 'gap' || event === 'goodbye') this.wrong.push(`${event} ${data}`)
    if (id !== undefined) this.#cursor = id
    if (event === 'cursor') this.start ??= id
    else if (data !== undefined && id !== undefined) this.ids.push(id)
    this.#changed()
  }
}

t.setTimeout((SECONDS + 90) * 1000)

t.test(
  `${SUBSCRIBERS} subscribers that drop at random get each of ${PER_SECOND} events a second once and in order`,
  async t => {
    const server = await serve(t, { MAX_CONNECTIONS: '0', HEARTBEAT: '500ms', RING_SIZE: '5000' })
    const droppers = Array.from({ length: SUBSCRIBERS }, (_, number) => new Dropper(server, number))
    t.teardown(() => droppers.forEach(dropper => dropper.close()))
    await Promise.all(droppers.map(dropper => dropper.until(() => dropper.start !== undefined, 'a cursor')))

    const published = await publishFor(server, SECONDS)
    for (const dropper of droppers) dropper.stay()
    const last = await publishAll(
      server,
      TOPICS.map(topic => ({ topic, data: 'end' }))
    )
    published.push(...TOPICS.map((topic, index) => ({ topic, id: last[index]! })))

    let delivered = 0
    let drops = 0
    const wrong: string[] = []
    for (const [number, dropper] of droppers.entries()) {
      const wanted = published
        .filter(({ id, topic }) => dropper.wants(topic) && isAfter(id, dropper.start!))
        .map(({ id }) => id)
      await dropper.until(() => dropper.ids.at(-1) === wanted.at(-1), 'the last event')
      const first = dropper.ids.findIndex((id, index) => id !== wanted[index])
      if (first >= 0 || dropper.ids.length !== wanted.length) {
        wrong.push(`subscriber ${number}: ${dropper.ids.length} of ${wanted.length}, wrong from ${first}`)
      }
      wrong.push(...dropper.wrong.map(what => `subscriber ${number}: ${what}`))
      delivered += dropper.ids.length
      drops += dropper.drops
    }
    t.strictSame(wrong, [])
    t.equal(published.length, SECONDS * PER_SECOND + TOPICS.length)
    t.ok(drops > SUBSCRIBERS, `${drops} drops`)
    t.comment(`${delivered} events delivered over ${drops} drops`)

    for (const dropper of droppers) dropper.close()
    const metrics = await metricsOf(server)
    t.ok(metrics.get('ringside_resumes_total{outcome="replayed"}')! > 0)
    t.equal(metrics.get('ringside_gaps_total{reason="expired"}') ?? 0, 0)
  }
)

/** Publishes at an even pace, and answers with all that was stored. */
async function publishFor(server: Address, seconds: number): Promise<Published[]> {
  const random = randomFrom(SEED)
  const published: Published[] = []
  const started = Date.now()
  while (published.length < seconds * PER_SECOND) {
    const due = started + (published.length / PER_SECOND) * 1000
    if (due > Date.now()) await new Promise(resolve => setTimeout(resolve, due - Date.now()))
    const events = Array.from({ length: BATCH }, (_, index) => ({
      topic: TOPICS[Math.floor(random() * TOPICS.length)]!,
      data: {
        number: published.length + index,
        text: 'some text\nthat is not short'.repeat(1 + Math.floor(random() * 3))
      }
    }))
    const ids = await publishAll(server, events)
    published.push(...events.map(({ topic }, index) => ({ topic, id: ids[index]! })))
  }
  return published
}

function isAfter(id: string, cursor: string): boolean {
  const [ms, seq] = id.split('-').map(Number) as [number, number]
  const [cursorMs, cursorSeq] = cursor.split('-').map(Number) as [number, number]
  return ms > cursorMs || (ms === cursorMs && seq > cursorSeq)
}
