import fc from 'fast-check'
import { test, type Test } from 'tap'
import { TOPICS, World, type Command, type Start, type WorldSettings } from './world.ts'

/** More of them, or others: for a hunt. The default is what every run of the tests goes through. */
const RUNS = Number(process.env['PROMISE_RUNS'] ?? 5000)
const SEED = Number(process.env['PROMISE_SEED'] ?? 20260131)

const client = fc.nat(3)
const filters = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.uniqueArray(fc.constantFrom(...TOPICS, '*', 's/*'), { minLength: 1, maxLength: 4 })
  },
  { weight: 1, arbitrary: fc.constantFrom<string[][]>(['s/*', 's/x'], ['a', '*'], ['a', 'a'], ['*', 's/*']) }
)
const start: fc.Arbitrary<Start> = fc.oneof(
  { weight: 3, arbitrary: fc.constant<Start>({ at: 'fresh' }) },
  {
    weight: 2,
    arbitrary: fc.record({ at: fc.constant('rewind' as const), count: fc.integer({ min: 1, max: 6 }) })
  },
  {
    weight: 2,
    arbitrary: fc.record({
      at: fc.constant('since' as const),
      ago: fc.constantFrom(0, 1, 900, 5000, 90_000, -5000)
    })
  },
  {
    weight: 5,
    arbitrary: fc.record({ at: fc.constant('seen' as const), index: fc.oneof(fc.nat(3), fc.nat(200)) })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      at: fc.constant('near' as const),
      index: fc.nat(60),
      by: fc.constantFrom(-1, 1, 1000, 1e9, -1e9)
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({
      at: fc.constant('text' as const),
      text: fc.constantFrom(
        'x',
        '1-',
        '-',
        '1-2-3',
        '0-0',
        '999999999999999-0',
        '1700000000000',
        '',
        `${'9'.repeat(300)}-0`
      )
    })
  }
)
const ttl = fc.option(fc.constantFrom(1, 3, 60), { nil: undefined, freq: 5 })

const command: fc.Arbitrary<Command> = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      do: fc.constant('publish' as const),
      batches: fc.array(fc.record({ topic: fc.nat(5), ttl }), { minLength: 1, maxLength: 3 }),
      times: fc.oneof(
        { weight: 8, arbitrary: fc.constant(1) },
        { weight: 1, arbitrary: fc.integer({ min: 2, max: 25 }) },
        { weight: 0, arbitrary: fc.constant(300) }
      )
    })
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('connect' as const),
      client,
      filters,
      start,
      rate: fc.constantFrom(0, 0, 0, 0, 1, 2, 10),
      enveloped: fc.boolean(),
      compressed: fc.constantFrom(false, false, true),
      slow: fc.constantFrom(false, false, true),
      twin: fc.boolean()
    })
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('mirror' as const),
      client,
      after: fc.option(fc.nat(60), { nil: undefined }),
      rate: fc.constantFrom(0, 0, 1, 10),
      compressed: fc.constantFrom(false, false, true),
      slow: fc.constantFrom(false, false, true)
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('change' as const),
      times: fc.constantFrom(1, 1, 1, 5, 25),
      remove: fc.constantFrom(false, false, false, true)
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('poll' as const),
      client: fc.nat(1),
      filters,
      start,
      rate: fc.constantFrom(0, 0, 0, 1),
      limit: fc.constantFrom(1, 3, 100),
      wait: fc.constantFrom(0, 1000, 5000),
      again: fc.constantFrom(true, true, false)
    })
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('drop' as const),
      client,
      lost: fc.constantFrom(0, 0, 0, 1, 2, 5)
    })
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant('resume' as const), client }) },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('narrow' as const),
      client,
      keep: fc.integer({ min: 1, max: 15 })
    })
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('slow' as const), client }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('drain' as const),
      client,
      bytes: fc.constantFrom(1, 30, 1e9, 1e9)
    })
  },
  {
    weight: 8,
    arbitrary: fc.record({
      do: fc.constant('deliver' as const),
      count: fc.constantFrom(1, 2, 5, 1e9, 1e9),
      twice: fc.boolean(),
      shard: fc.nat(2)
    })
  },
  { weight: 10, arbitrary: fc.record({ do: fc.constant('release' as const), index: fc.nat(5) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('refuse' as const), index: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('early' as const), early: fc.boolean() }) },
  { weight: 8, arbitrary: fc.constant<Command>({ do: 'turn' }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('advance' as const),
      ms: fc.constantFrom(1, 10, 200, 500, 1000, 3000, 6000, 61_000)
    })
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('step back' as const), ms: fc.constantFrom(1, 500, 10_000) })
  },
  { weight: 1, arbitrary: fc.constantFrom<Command>({ do: 'cut' }, { do: 'down' }) },
  { weight: 2, arbitrary: fc.constant<Command>({ do: 'restore' }) },
  { weight: 1, arbitrary: fc.constant<Command>({ do: 'begin anew' }) },
  { weight: 8, arbitrary: fc.constant<Command>({ do: 'flow' }) }
)

const settings: fc.Arbitrary<WorldSettings> = fc.record({
  RING_SIZE: fc.oneof(
    { weight: 15, arbitrary: fc.integer({ min: 1, max: 20 }) },
    { weight: 1, arbitrary: fc.constant(400) }
  ),
  RING_TTL: fc.constantFrom(1000, 5000, 30_000, 3_600_000, 3_600_000, 3_600_000),
  SEND_BUFFER: fc.constantFrom(1, 60, 200, 100_000),
  pageLimit: fc.constantFrom(1, 2, 5, Infinity, Infinity),
  shards: fc.constantFrom(1, 1, 1, 2, 3)
})

const squeezed = fc.oneof(
  { weight: 12, arbitrary: command },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('squeeze' as const),
      who: fc.constantFrom('store' as const, 'hub' as const),
      part: fc.constantFrom(0.3, 0.7, 0.95, 1)
    })
  }
)

const small: fc.Arbitrary<WorldSettings> = fc
  .tuple(settings, fc.integer({ min: 12_000, max: 30_000 }))
  .map(([all, store]): WorldSettings => ({ ...all, shards: 1, memory: { store, hub: 150_000 } }))

test('every event arrives exactly once and in id order, or a gap is announced before', t =>
  holds(t, settings, command, RUNS))

test('so it is where memory is small: what was let go to make room is told as a gap', t =>
  holds(t, small, squeezed, RUNS / 4))

async function holds(
  t: Test,
  settings: fc.Arbitrary<WorldSettings>,
  command: fc.Arbitrary<Command>,
  runs: number
): Promise<void> {
  let delivered = 0
  await fc.assert(
    fc.asyncProperty(
      settings,
      fc.array(command, { maxLength: 70, size: 'max' }),
      async (chosen, commands) => {
        const world = new World(chosen)
        await world.run(commands)
        delivered += world.delivered
      }
    ),
    { numRuns: runs, seed: SEED }
  )
  t.ok(delivered > runs, `${delivered} events were delivered and checked`)
}
