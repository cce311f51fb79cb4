import t, { type Test } from 'tap'
import { RedisLog, type LogShard } from '../../../src/broker/redis/log.ts'
import type { ShardRange, ShardReads } from '../../../src/broker/redis/reads.ts'
import type { ShardListener } from '../../../src/broker/redis/shard.ts'
import { BrokerUnavailable } from '../../../src/broker/unavailable.ts'
import {
  comparePositions,
  formatCursor,
  justBefore,
  wildcardOf,
  type Cursor,
  type Position,
  type StoredEvent
} from '../../../src/event.ts'
import { settled } from '../../support/clock.ts'
import { at } from './stage.ts'

/** A shard that answers from what the test has put into it, when the test lets it. */
class StagedShard implements LogShard {
  readonly life = { birth: at(1), lost: at(0) }
  readonly appends = { append: () => this.#answer([]) }
  readonly events: StoredEvent[] = []
  readonly subscribed = new Set<string>()
  isLive = false
  error: Error | null = null
  /** Is called between the look-up of topics and their reading. */
  meanwhile = (): void => {}
  /** What a subscription waits for. */
  gate = Promise.resolve()
  listener!: ShardListener

  clear(): Promise<null> {
    return Promise.resolve(null)
  }

  readonly reads: LogShard['reads'] = {
    until: () => this.reads as ShardReads,
    range: (topics, after, limit) => this.#answer(this.#range(topics, after, limit)),
    changed: async (family, after) => {
      const through = this.#last
      const covered = this.events.filter(({ topic, id }) => wildcardOf(topic) === family && id.ms >= after.ms)
      const topics = [...new Set(covered.map(({ topic }) => topic))]
      const answer = await this.#answer({ through, topics })
      this.meanwhile()
      return answer
    },
    newest: (_filter, after) => this.#answer({ through: after, topics: [] }),
    page: () => this.#answer(null),
    rewind: (topics, count) => {
      const firsts = topics.map(topic => this.events.filter(event => event.topic === topic).slice(-count)[0])
      return this.#answer(new Map(firsts.flatMap(first => (first ? [[first.topic, justBefore(first)]] : []))))
    },
    state: () => this.#answer(null),
    states: topics => this.#answer(new Map(topics.map(topic => [topic, { value: topic, version: at(5) }]))),
    versions: topics => this.#answer(new Map(topics.map(topic => [topic, at(5)]))),
    withState: () => this.#answer(['s/state']),
    lastId: () => this.#answer(this.#last),
    end: () => this.#answer(null)
  }

  now(): number {
    return 0
  }

  start(listener: ShardListener): void {
    this.listener = listener
  }

  async subscribe(filter: string): Promise<Position> {
    const { error } = this
    await this.gate
    if (error) throw error
    this.subscribed.add(filter)
    return this.#last
  }

  unsubscribe(filter: string): void {
    this.subscribed.delete(filter)
  }

  /** Stores an event, of a topic's order. */
  store(topic: string, ms: number): void {
    const prev = this.events.findLast(event => event.topic === topic)?.id ?? null
    this.events.push({ id: at(ms), shard: 0, topic, type: 'message', data: `${ms}`, prev })
  }

  goLive(): void {
    this.isLive = true
    this.listener.live()
  }

  get #last(): Position {
    return this.events.at(-1)?.id ?? at(1)
  }

  #range(topics: readonly string[], after: Position, limit: number): ShardRange {
    const found = topics.map(topic => {
      const all = this.events.filter(event => event.topic === topic)
      const events = all.filter(({ id }) => comparePositions(id, after) > 0).slice(0, limit)
      return { topic, last: all.at(-1)?.id ?? null, events }
    })
    return { through: this.#last, topics: found }
  }

  #answer<T>(value: T): Promise<T> {
    return this.error ? Promise.reject(this.error) : Promise.resolve(value)
  }
}

/** A log over such shards, and what it has said. */
async function begin(count = 1) {
  const shards = Array.from({ length: count }, () => new StagedShard())
  const said: string[] = []
  let recoveries = 0
  const log = new RedisLog(shards, () => recoveries++)
  await log.start({
    event: ({ topic, id }) => said.push(`${topic} ${id.ms}`),
    tick: position => said.push(`tick ${formatCursor(position)}`),
    jump: position => said.push(`jump ${formatCursor(position)}`),
    gap: (reason, topics) => said.push(`${reason} ${topics.join(' ')}`),
    up: up => said.push(up ? 'up' : 'down')
  })
  for (const shard of shards) shard.goLive()
  said.length = 0
  return { log, shards, shard: shards[0]!, said, recoveries: () => recoveries }
}

const away = new BrokerUnavailable('Redis: away')

/** Reads a filter to its end, page by page; the answer is the ids. */
async function readAll(t: Test, log: RedisLog, filter: string, limit: number): Promise<number[]> {
  const ids: number[] = []
  let cursor: Cursor = [at(1)]
  for (let page = 0; page < 1000; page++) {
    const { events, end } = await log.range(filter, cursor, limit)
    ids.push(...events.map(({ id }) => id.ms))
    if (comparePositions(end[0]!, cursor[0]!) === 0) return ids
    cursor = end
  }
  t.fail('it has no end')
  return ids
}

t.test('up, as soon as all shards are', async t => {
  const shards = [new StagedShard(), new StagedShard()]
  let recoveries = 0
  const log = new RedisLog(shards, () => recoveries++)
  const said: boolean[] = []
  const nothing = () => {}
  await log.start({ event: nothing, tick: nothing, jump: nothing, gap: nothing, up: up => said.push(up) })
  t.strictSame([log.up, said], [false, [false]])
  await t.rejects(log.subscribe('a'), { message: 'no connection to Redis' })
  shards[0]!.goLive()
  t.notOk(log.up)
  shards[1]!.goLive()
  t.strictSame([log.up, said, recoveries], [true, [false, true], 1])
  shards[1]!.isLive = false
  shards[1]!.listener.live()
  t.strictSame([log.up, said], [false, [false, true, false]])
})

t.test('a wildcard of many topics: a page ends where one of them may have more', async t => {
  const { log, shard } = await begin()
  // of each of 64 topics 8 events at most are read in one call for pages of 100; one has many more
  const expected: number[] = []
  for (let index = 0; index < 400; index++) {
    shard.store(index % 4 > 0 ? 's/busy' : `s/${index % 64}`, 10 + index)
    expected.push(10 + index)
  }
  for (let index = 0; index < 64; index++) {
    shard.store(`s/${index}`, 1000 + index)
    expected.push(1000 + index)
  }
  t.strictSame(await readAll(t, log, 's/*', 100), expected)
  t.strictSame(await readAll(t, log, 's/*', 3), expected)
  const page = await log.range('s/*', [at(1)], 100)
  t.strictSame([page.events.length, page.end], [11, [at(20)]], 'eight of the busy one, and three of others')
})

t.test('more topics than go into one call', async t => {
  const { log, shard } = await begin()
  const expected = Array.from({ length: 250 }, (_, index) => 10 + index)
  for (const ms of expected) shard.store(`s/${ms}`, ms)
  t.strictSame(await readAll(t, log, 's/*', 1000), expected)
})

t.test('a topic that is born between the look-up and the reading is not passed over', async t => {
  const { log, shard } = await begin()
  shard.store('s/a', 10)
  shard.meanwhile = () => {
    shard.meanwhile = () => {}
    shard.store('s/born', 11)
    shard.store('s/a', 12)
  }
  const page = await log.range('s/*', [at(1)], 100)
  t.strictSame([page.events.map(({ id }) => id.ms), page.end], [[10], [at(10)]])
  t.strictSame(await readAll(t, log, 's/*', 100), [10, 11, 12])
})

t.test('a filter without topics in a shard is complete there up to what the shard has given', async t => {
  const { log, shards } = await begin(2)
  shards[1]!.store('other', 50)
  t.strictSame((await log.range('s/*', [at(1), at(1)], 10)).end, [at(1), at(50)])
})

t.test('a range of a store that began anew after its cursor has nothing, and does not move it', async t => {
  const { log, shard } = await begin()
  shard.store('s/a', 10)
  shard.life.birth = at(5)
  for (const filter of ['s/*', 's/a'])
    t.strictSame(await log.range(filter, [at(3)], 10), { events: [], end: [at(3)], gaps: new Map() })
})

t.test('rewind and topics', async t => {
  const { log, shard } = await begin()
  for (const [topic, ms] of [
    ['s/a', 10],
    ['s/a', 12],
    ['s/b', 14]
  ] as const)
    shard.store(topic, ms)
  t.strictSame((await log.topics('s/*')).sort(), ['s/a', 's/b', 's/state'])
  t.strictSame(await log.topics('s/any'), ['s/any'])
  t.strictSame(
    [...(await log.rewind('s/*', 1))],
    [
      ['s/a', at(11)],
      ['s/b', at(13)]
    ]
  )
  t.strictSame([...(await log.rewind('s/a', 2))], [['s/a', at(9)]])
})

t.test('states and versions of topics in several shards', async t => {
  const { log } = await begin(3)
  const topics = ['a', 'b', 'c', 'd', 'e']
  t.strictSame([...(await log.states(topics))].map(([topic, { value }]) => topic + value).sort(), [
    ...topics.map(topic => topic + topic)
  ])
  t.strictSame([...(await log.versions(topics)).keys()].sort(), topics)
})

t.test('`up` is said again after any question that was rejected, once the store answers', async t => {
  const questions: Record<string, (log: RedisLog) => Promise<unknown>> = {
    'range of a topic': log => log.range('a', [at(1)], 10),
    'range of a wildcard': log => log.range('s/*', [at(1)], 10),
    'rewind of a topic': log => log.rewind('a', 1),
    'rewind of a wildcard': log => log.rewind('s/*', 1),
    topics: log => log.topics('s/*'),
    state: log => log.state('a'),
    states: log => log.states(['a']),
    versions: log => log.versions(['a']),
    position: log => log.position(),
    subscribe: log => log.subscribe('a')
  }
  for (const [name, ask] of Object.entries(questions)) {
    const { log, shard, said, recoveries } = await begin()
    shard.error = away
    await t.rejects(ask(log), away, name)
    t.strictSame(said, [], name)
    shard.error = null
    shard.listener.tick(0, at(20))
    t.strictSame(said, ['tick 20-0', 'up'], name)
    shard.listener.tick(0, at(21))
    t.strictSame(said.slice(2), ['tick 21-0'], `${name}, once`)
    t.equal(recoveries(), 1, 'it never was down')
  }
})

t.test('nobody is told `up` while it is down', async t => {
  const { log, shards, said } = await begin(2)
  shards[0]!.error = away
  await t.rejects(log.position())
  shards[1]!.isLive = false
  shards[1]!.listener.live()
  shards[0]!.listener.tick(0, at(20))
  t.notOk(said.includes('up'))
  shards[1]!.goLive()
  shards[0]!.listener.tick(0, at(21))
  t.strictSame(
    said.filter(each => !each.startsWith('tick')),
    ['down', 'up'],
    'which ends what was owed'
  )
})

t.test('a wildcard that can not be subscribed to in one shard is given up in all', async t => {
  const { log, shards } = await begin(3)
  const subscribed = () => shards.map(shard => shard.subscribed.has('s/*'))
  shards[1]!.error = away
  let open!: () => void
  shards[2]!.gate = new Promise(resolve => (open = resolve))
  const refused = log.subscribe('s/*')
  await settled()
  t.strictSame(subscribed(), [true, false, false])
  open()
  await t.rejects(refused, away)
  t.strictSame(subscribed(), [false, false, false])

  t.test('unless it was given up and is subscribed to again', async t => {
    shards[2]!.gate = new Promise(resolve => (open = resolve))
    const refused = log.subscribe('s/*')
    await settled()
    log.unsubscribe('s/*')
    shards[1]!.error = null
    const again = log.subscribe('s/*')
    await settled()
    open()
    await t.rejects(refused, away)
    await again
    t.strictSame(subscribed(), [true, true, true])
    log.unsubscribe('s/*')
    t.strictSame(subscribed(), [false, false, false])
  })
})

t.test('what a shard hands over goes on, with the position of all', async t => {
  const { shards, said } = await begin(2)
  shards[0]!.listener.tick(0, at(10))
  shards[1]!.listener.event({ ...{ id: at(20), shard: 1, topic: 'a' }, type: 'm', data: '', prev: null })
  shards[1]!.listener.tick(1, at(15))
  shards[0]!.listener.jump(0, at(30))
  shards[0]!.listener.gap(['a', 's/*'])
  t.strictSame(said, [
    `tick ${formatCursor([at(10), at(0)])}`,
    'a 20',
    `tick ${formatCursor([at(10), at(20)])}`,
    `jump ${formatCursor([at(30), at(20)])}`,
    'lost a s/*'
  ])
})
