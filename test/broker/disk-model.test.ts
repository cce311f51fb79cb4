import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { DiskBroker } from '../../src/broker/disk/broker.ts'
import type { Append, Appended, EventLog } from '../../src/broker/event-log.ts'
import { LocalBroker } from '../../src/broker/local/broker.ts'
import { formatPosition, type Position, type StoredEvent } from '../../src/event.ts'
import { HeldClock } from '../support/clock.ts'

const RUNS = Number(process.env['MODEL_RUNS'] ?? 60)

const TOPICS = ['a', 's/x', 's/y', 's/z']

type Command =
  | {
      do: 'append'
      items: { topic: number; ttl: number | undefined; key: number | undefined; set: number }[]
    }
  | { do: 'many'; topic: number; count: number }
  | { do: 'pass'; ms: number }
  | { do: 'restart' }

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      items: fc.array(
        fc.record({
          topic: fc.nat(TOPICS.length - 1),
          ttl: fc.option(fc.constantFrom(1, 3, 60), { nil: undefined, freq: 4 }),
          key: fc.option(fc.nat(3), { nil: undefined, freq: 3 }),
          set: fc.nat(5)
        }),
        { minLength: 1, maxLength: 4 }
      )
    })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('many' as const),
      topic: fc.nat(TOPICS.length - 1),
      count: fc.constantFrom(5, 40, 600)
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.constantFrom(1, 700, 4000, 70_000) })
  },
  { weight: 3, arbitrary: fc.constant<Command>({ do: 'restart' }) }
)

const LISTENER = { event: () => {}, tick: () => {}, jump: () => {}, gap: () => {}, up: () => {} }

/** The log in memory and the one on disk, which live through the same. */
class Twins {
  readonly #clock = new HeldClock()
  readonly #settings
  readonly #folder = mkdtempSync(join(tmpdir(), 'ringside-model-'))
  readonly #local: LocalBroker
  #disk!: DiskBroker
  /** What was published, by its id in each log, so that ids of both can be compared. */
  readonly #names: [local: Map<string, string>, disk: Map<string, string>] = [new Map(), new Map()]
  #count = 0

  private constructor(settings: { RING_SIZE: number; RING_TTL: number }) {
    this.#settings = { ...settings, FSYNC: 'off', MAX_STORE_BYTES: 1024 ** 3 } as const
    this.#local = new LocalBroker(settings, this.#clock)
  }

  static async begin(settings: { RING_SIZE: number; RING_TTL: number }): Promise<Twins> {
    const twins = new Twins(settings)
    await twins.#local.log.start(LISTENER)
    await twins.#open()
    return twins
  }

  async #open(): Promise<void> {
    this.#disk = await DiskBroker.open(this.#folder, this.#settings, this.#clock)
    await this.#disk.log.start(LISTENER)
  }

  get #logs(): readonly [EventLog, EventLog] {
    return [this.#local.log, this.#disk.log]
  }

  async run(command: Command): Promise<void> {
    // no event has the time of a tick
    await this.#clock.advance(1)
    if (command.do === 'pass') return this.#clock.advance(command.ms)
    if (command.do === 'restart') {
      await this.#disk.close()
      return this.#open()
    }
    if (command.do === 'append') return this.#append(command.items.map(item => this.#item(item)))
    const { topic, count } = command
    for (let left = count; left > 0; left--)
      await this.#append([this.#item({ topic, ttl: undefined, key: undefined, set: 9 })])
  }

  #item({ topic, ttl, key, set }: (Command & { do: 'append' })['items'][number]): Append {
    const data = key === undefined ? `${++this.#count}` : `key ${key}`
    const state = [{ value: data }, { value: null }, { value: data, version: null }][set]
    return {
      topic: TOPICS[topic]!,
      type: 'message',
      data,
      ...(ttl !== undefined && { ttl }),
      ...(key !== undefined && { key: `${key}` }),
      ...(state && { state })
    }
  }

  async #append(items: readonly Append[]): Promise<void> {
    const [local, disk] = await Promise.all(this.#logs.map(log => log.append(items)))
    const outcomes = (appended: Appended[]) => appended.map(({ outcome }) => outcome)
    same(outcomes(disk!), outcomes(local!), 'the outcome')
    for (const [log, appended] of [local!, disk!].entries()) {
      appended.forEach((each, index) => {
        if (each.outcome === 'stored')
          this.#names[log]!.set(
            formatPosition(each.id[0]!),
            `${items[index]!.data as string} of ${this.#count}`
          )
      })
    }
  }

  /** Compares all that can be asked. */
  async compare(): Promise<void> {
    for (const filter of [...TOPICS, 's/*', '*']) {
      for (const count of [1, 3, 1000])
        await this.#both(`rewind ${filter} ${count}`, async (log, name) => {
          const starts = await log.rewind(filter, count)
          const pages = [...starts].map(async ([topic, start]) => [
            topic,
            await this.#from(log, name, topic, start)
          ])
          return (await Promise.all(pages)).sort()
        })
      await this.#both(`range ${filter}`, (log, name) => this.#from(log, name, filter, log.birth[0]!))
      await this.#both(`newest ${filter}`, async (log, name) =>
        (await log.newest(filter, log.birth, 1000)).events.map(event => name(event.id))
      )
    }
    await this.#both('states', async (log, name) =>
      [...(await log.states(TOPICS))].map(([topic, { value, version }]) => [topic, value, name(version)])
    )
    await this.#both('versions', async (log, name) =>
      [...(await log.versions(TOPICS))].map(([topic, version]) => [topic, name(version)])
    )
    for (const topic of TOPICS) await this.#both('state', async log => (await log.state(topic))?.value)
  }

  /** All that comes after a position, by small pages. */
  async #from(
    log: EventLog,
    name: (id: Position) => string,
    filter: string,
    start: Position
  ): Promise<unknown> {
    const events: StoredEvent[] = []
    let gaps: unknown[] | undefined
    for (let after = [start]; ;) {
      const page = await log.range(filter, after, 7)
      gaps ??= [...page.gaps]
        .filter(([, last]) => !this.#isOld(last))
        .map(([topic, last]) => [topic, name(last)])
        .sort()
      events.push(...page.events)
      after = [...page.end]
      const [{ ms, seq }, end] = [after[0]!, (await log.position())[0]!]
      if (ms === end.ms && seq === end.seq) break
      if (page.events.length === 0 && page.gaps.size === 0 && events.length > 5000) throw new Error('no end')
    }
    return {
      gaps,
      events: events.map(({ id, topic, data, prev }) => [topic, data, name(id), name(prev ?? log.birth[0]!)])
    }
  }

  /** When exactly a topic is forgotten, after every cursor has become too old to ask for it, is nobody's business. */
  #isOld(id: Position): boolean {
    return id.ms < this.#clock.now() - this.#settings.RING_TTL
  }

  async #both(
    what: string,
    ask: (log: EventLog, name: (id: Position) => string) => Promise<unknown>
  ): Promise<void> {
    const [local, disk] = await Promise.all(
      this.#logs.map((log, index) =>
        ask(log, id => (this.#isOld(id) ? 'old' : (this.#names[index]!.get(formatPosition(id)) ?? 'none')))
      )
    )
    same(disk, local, what)
  }

  async end(): Promise<void> {
    await Promise.all([this.#local.close(), this.#disk.close()])
    rmSync(this.#folder, { recursive: true })
  }
}

function same(disk: unknown, local: unknown, what: string): void {
  const [a, b] = [JSON.stringify(disk), JSON.stringify(local)]
  if (a !== b) throw new Error(`${what}: on disk ${a}, in memory ${b}`)
}

t.test('the log on disk says what the one in memory says, across restarts', async t => {
  let restarts = 0
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        RING_SIZE: fc.constantFrom(1, 2, 5, 30, 400),
        RING_TTL: fc.constantFrom(5000, 60_000, 3_600_000)
      }),
      fc.array(command, { maxLength: 25, size: 'max' }),
      async (settings, commands) => {
        const twins = await Twins.begin(settings)
        try {
          for (const each of commands) await twins.run(each)
          restarts += commands.filter(each => each.do === 'restart').length
          await twins.compare()
        } finally {
          await twins.end()
        }
      }
    ),
    { numRuns: RUNS, seed: 20260131 }
  )
  t.ok(restarts > RUNS / 2, `${restarts} restarts`)
})
