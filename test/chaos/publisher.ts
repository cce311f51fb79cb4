import { Agent, request } from 'node:http'
import { setTimeout as delay } from 'node:timers/promises'
import type { Instance } from './instance.ts'
import type { Acknowledged } from './model.ts'
import type { Random } from './random.ts'

/** How long a publisher waits for an answer before it asks another instance, in milliseconds. */
const ANSWER_MS = 6000

/** What a 503 says of an event that Redis has refused: then it is known not to be stored. */
const REFUSED = /^Redis (is full|refused it);/

/** An event that was acknowledged: when, in milliseconds since the epoch, and by which instance. */
export interface Answered extends Acknowledged {
  readonly at: number
  readonly instance: string
}

/** What all publishers have done. */
export class Publications {
  readonly acknowledged: Answered[] = []
  /** Answers that are neither 201 nor 503. */
  readonly strange: string[] = []
  /** Events that were numbered. */
  published = 0
  retries = 0
  /** Answers that said that the event was there already. */
  replayed = 0
  /** What was there already, although all answers before had been that Redis refused it: its key, and those answers. */
  readonly falselyRefused: string[] = []
  /** How much was there already, although all answers before were 503: it was not known to be stored. */
  stored503 = 0
  readonly #numbers = new Map<string, number>()
  readonly #shards: number

  /** `shards`: how many the topics are spread over. */
  constructor(shards: number) {
    this.#shards = shards
  }

  /** Takes that something was there already, and how it was answered before. */
  replay({ key, events }: Job, before: readonly (Answer | null)[]): void {
    this.replayed++
    if (before.every(answer => answer !== null)) this.stored503++
    // of a batch one shard may refuse its part while another one stores its own
    const isWhole = this.#shards === 1 || events.length === 1
    if (isWhole && before.every(answer => isRefusal(answer)))
      this.falselyRefused.push(`${key}: ${before.map(answer => answer?.text).join(' ')}`)
  }

  number(topic: string): { topic: string; n: number } {
    const n = (this.#numbers.get(topic) ?? 0) + 1
    this.#numbers.set(topic, n)
    this.published++
    return { topic, n }
  }
}

export interface PublisherOptions {
  readonly name: string
  readonly topics: readonly string[]
  /** Events a second. */
  readonly rate: number
  readonly random: Random
  readonly instance: () => Instance
  readonly publications: Publications
}

interface Answer {
  /** Its name. */
  readonly instance: string
  readonly status: number
  readonly replayed: boolean
  readonly text: string
}

interface Job {
  readonly path: string
  readonly key: string
  readonly body: string
  readonly events: readonly { topic: string; n: number }[]
}

function isRefusal(answer: Answer | null): boolean {
  return answer !== null && REFUSED.test((JSON.parse(answer.text) as { detail?: string }).detail ?? '')
}

/** Publishes one thing after the other, each under a key and again until it is acknowledged. */
export class Publisher {
  readonly #options: PublisherOptions
  readonly #agent = new Agent({ keepAlive: true })
  #jobs = 0
  #stopped = false

  constructor(options: PublisherOptions) {
    this.#options = options
  }

  /** Runs until `stop`, and then until its last event is acknowledged. */
  async run(): Promise<void> {
    const { random, rate } = this.#options
    while (!this.#stopped) {
      const job = this.#job()
      const pause = delay((1000 / rate) * job.events.length * (0.5 + random.next()))
      await this.#publish(job)
      await pause
    }
    this.#agent.destroy()
  }

  stop(): void {
    this.#stopped = true
  }

  #job(): Job {
    const { name, topics, random, publications } = this.#options
    const key = `${name}-${++this.#jobs}`
    if (random.chance(0.7)) {
      const event = publications.number(random.pick(topics))
      const type = random.chance(0.3) ? '?type=tick' : ''
      return { path: `/events/${event.topic}${type}`, key, body: JSON.stringify(event), events: [event] }
    }
    const events = Array.from({ length: random.whole(2, 12) }, () => publications.number(random.pick(topics)))
    const body = JSON.stringify(events.map(event => ({ topic: event.topic, data: event })))
    return { path: '/events', key, body, events }
  }

  async #publish(job: Job): Promise<void> {
    const { random, publications } = this.#options
    const before: (Answer | null)[] = []
    for (;;) {
      const answer = await this.#post(job).catch(() => null)
      if (answer?.status === 201) {
        if (answer.replayed) publications.replay(job, before)
        const { id, ids = [id!] } = JSON.parse(answer.text) as { id?: string; ids?: string[] }
        const { instance } = answer
        job.events.forEach((event, index) =>
          publications.acknowledged.push({ ...event, id: ids[index]!, at: Date.now(), instance })
        )
        return
      }
      if (answer && answer.status !== 503) {
        publications.strange.push(`${job.key}: ${answer.status} ${answer.text}`)
        return
      }
      before.push(answer)
      publications.retries++
      await delay(random.whole(50, 300))
    }
  }

  #post({ path, key, body }: Job): Promise<Answer> {
    const { port, name } = this.#options.instance()
    return new Promise((resolve, reject) => {
      const headers = { 'content-type': 'application/json', 'idempotency-key': key }
      const sent = request({ host: '127.0.0.1', port, path, method: 'POST', headers, agent: this.#agent })
      const timer = setTimeout(() => sent.destroy(new Error('no answer')), ANSWER_MS)
      sent.on('response', response => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('error', reject)
        response.on('end', () =>
          resolve({
            instance: name,
            status: response.statusCode!,
            replayed: response.headers['idempotent-replayed'] === 'true',
            text: Buffer.concat(chunks).toString()
          })
        )
      })
      sent.on('error', reject)
      sent.on('close', () => {
        clearTimeout(timer)
        reject(new Error('closed'))
      })
      sent.end(body)
    })
  }
}
