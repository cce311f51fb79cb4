import t from 'tap'
import { ShardReads, type StoppableStore } from '../../../src/broker/redis/reads.ts'
import type { RangeAnswer, RangeEntry } from '../../../src/broker/redis/wire.ts'
import { BrokerUnavailable } from '../../../src/broker/unavailable.ts'
import { at, idAt, KEYS, RING_TTL, StagedLife } from './stage.ts'
import { Rules } from '../../../src/rules/rules.ts'

/** An entry of a ring. */
function entry(ms: number, prev: number | null, data: string, expires = '-'): RangeEntry {
  const head = `${prev === null ? '-' : idAt(prev)} ${expires} t message`
  return [Buffer.from(idAt(ms)), ['h', head, 'd', data].map(text => Buffer.from(text))]
}

/** ShardReads over a store that keeps what it is asked, and gives what the test has put in. */
class Stage {
  readonly life = new StagedLife()
  readonly asked: string[] = []
  position = at(0)
  range: unknown[] = []
  clock: (string | null)[] = ['50', '2', '1-0', null]
  members: string[] = []
  answers: string[][] = []
  error: Error | null = null
  readonly reads: ShardReads

  constructor() {
    const answer = <T>(name: string, args: readonly (string | number)[], value: () => T): Promise<T> => {
      this.asked.push([name, ...args].join(' '))
      return this.error ? Promise.reject(this.error) : Promise.resolve(value())
    }
    const store: StoppableStore = {
      until: () => store,
      ringsideRangeBuffer: (...args) =>
        answer('range', args, () => this.range.map(bytes) as unknown as RangeAnswer),
      hmget: (...args) => answer('hmget', args, () => this.clock),
      smembers: (...args) => answer('smembers', args, () => this.members),
      zrangebyscore: (...args) => answer('zrangebyscore', args, () => this.members),
      ringsidePageBuffer: (...args) =>
        answer('page', args, () => this.range.map(bytes) as unknown as RangeAnswer),
      ringsideNewestBuffer: (...args) =>
        answer('newest', args, () => this.range.map(bytes) as unknown as RangeAnswer),
      ringsideRewind: (...args) => answer('rewind', args, () => this.answers.shift()!),
      ringsideStates: (...args) => answer('states', args, () => this.answers.shift()!)
    }
    this.reads = new ShardReads({
      ...{ shard: 3, keys: KEYS, store, life: this.life, rules: new Rules({ RING_SIZE: 10, RING_TTL }) },
      position: () => this.position
    })
  }
}

function bytes(value: unknown): unknown {
  return typeof value === 'string' ? Buffer.from(value) : value
}

t.test('a range: of each topic its last id and its events', async t => {
  const stage = new Stage()
  stage.range = ['50-2', '1-0', '30-0', '40-0', [entry(35, 20, 'x'), entry(40, 35, 'y')], '', []]
  const range = await stage.reads.range(['s/a', 's/b'], at(33), 10)
  t.strictSame(stage.asked, [
    `range 4 ${KEYS.clock} ${KEYS.last('s/*')} ${KEYS.ring('s/a')} ${KEYS.ring('s/b')} 10 s/a 33-0 s/b 33-0`
  ])
  t.strictSame(range.through, at(50, 2))
  t.match(range.topics, [
    {
      topic: 's/a',
      last: at(40),
      events: [
        { id: at(35), prev: at(20), data: 'x', shard: 3, topic: 's/a' },
        { id: at(40), prev: at(35), data: 'y' }
      ]
    },
    { topic: 's/b', last: null, events: [] }
  ])
  t.strictSame([stage.life.birth, stage.life.lost], [at(1), at(30)], 'what it says of the store counts')
})

t.test('nothing is read that is older than RING_TTL, whatever a ring still holds', async t => {
  const stage = new Stage()
  stage.position = at(RING_TTL + 500, 7)
  stage.range = ['50-2', '1-0', '', '', []]
  await stage.reads.range(['a'], at(33), 10)
  await stage.reads.range(['a'], at(501), 10)
  await stage.reads.page('*', at(33), 10)
  stage.answers = [['']]
  await stage.reads.rewind(['a'], 4, 9000)
  t.strictSame(
    stage.asked.map(text => text.replace(KEYS.ring('a'), 'a')),
    [
      `range 3 ${KEYS.clock} ${KEYS.last('*')} a 10 a 500-0`,
      `range 3 ${KEYS.clock} ${KEYS.last('*')} a 10 a 501-0`,
      `page ${KEYS.clock} ${KEYS.last('*')} ${KEYS.order('*')} ${KEYS.ring('')} 500-0 10`,
      'rewind 1 a 4 1000 9000 500-0'
    ]
  )
})

t.test('a page of a family, or none where its order can not tell', async t => {
  const stage = new Stage()
  const x = [entry(35, 20, 'x')]
  stage.range = ['50-2', '1-0', '30-0', '35-0', 's/a', '', x, 's/b', '34-0', []]
  const page = await stage.reads.page('s/*', at(33), 2)
  t.match(page, {
    through: at(35),
    topics: [
      { topic: 's/a', last: null, events: [{ id: at(35), prev: at(20), topic: 's/a', data: 'x', shard: 3 }] },
      { topic: 's/b', last: at(34), events: [] }
    ]
  })
  t.strictSame([stage.life.birth, stage.life.lost], [at(1), at(30)], 'what it says of the store counts')
  stage.range = ['50-2', '1-0', '30-0', '']
  t.equal(await stage.reads.page('s/*', at(33), 2), null)
})

t.test('of many topics one call looks at some, and the next goes on from there', async t => {
  const stage = new Stage()
  stage.answers = [['40-0 35-0', ''], ['7-0 -']]
  t.strictSame(
    [...(await stage.reads.rewind(['a', 'b', 'c'], 2, 0))],
    [
      ['a', at(39)],
      ['c', at(6)]
    ]
  )
  stage.answers = [
    ['7-1', '{}'],
    ['', '', '8-0', '']
  ]
  t.strictSame(
    [...(await stage.reads.states(['a', 'b', 'c']))],
    [
      ['a', { value: '{}', version: at(7, 1) }],
      ['c', { value: '', version: at(8) }]
    ]
  )
  stage.answers = [['7-1', '', '', '']]
  t.strictSame([...(await stage.reads.versions(['a', 'b']))], [['a', at(7, 1)]])
  t.strictSame(
    stage.asked.map(text => text.replaceAll(KEYS.prefix, '')),
    [
      'rewind 3 ring:a ring:b ring:c 2 1000 0 0-0 0-0 0-0',
      'rewind 1 ring:c 2 1000 0 0-0',
      'states 3 state:a state:b state:c value 1048576',
      'states 2 state:b state:c value 1048576',
      'states 2 state:a state:b  1048576'
    ]
  )
})

t.test(
  'topics are looked up after the last id was asked for: one that is born later lies beyond it',
  async t => {
    const stage = new Stage()
    stage.members = ['s/a', 's/b']
    t.strictSame(await stage.reads.changed('s/*', at(33, 5)), { through: at(50, 2), topics: ['s/a', 's/b'] })
    t.strictSame(stage.asked, [
      `hmget ${KEYS.clock} ms seq birth lost`,
      `zrangebyscore ${KEYS.index('s/*')} 33 +inf`
    ])
  }
)

t.test('a state', async t => {
  const stage = new Stage()
  stage.clock = ['{"a":1}', '7-1']
  t.strictSame(await stage.reads.state('a'), { value: '{"a":1}', version: at(7, 1) })
  stage.clock = ['', '7-1']
  t.strictSame(await stage.reads.state('a'), { value: '', version: at(7, 1) }, 'an empty one is one')
  stage.clock = [null, null]
  t.equal(await stage.reads.state('a'), null)
})

t.test('a store that was emptied can say nothing', async t => {
  const stage = new Stage()
  stage.range = ['', '', '', '', []]
  stage.clock = [null, null, null, null]
  const emptied = { name: BrokerUnavailable.name, message: 'Redis was emptied' }
  await t.rejects(stage.reads.range(['a'], at(33), 10), emptied)
  await t.rejects(stage.reads.lastId(), emptied)
  await t.rejects(stage.reads.changed('*', at(33)), emptied)
  await t.rejects(stage.reads.page('*', at(33), 10), emptied)
  t.strictSame(stage.life.births, [], 'not even what its birth is')
})

t.test('whatever fails, the store is away', async t => {
  const stage = new Stage()
  const ask: Record<string, () => Promise<unknown>> = {
    range: () => stage.reads.range(['a'], at(33), 10),
    changed: () => stage.reads.changed('*', at(33)),
    page: () => stage.reads.page('*', at(33), 10),
    rewind: () => stage.reads.rewind(['a'], 1, 0),
    state: () => stage.reads.state('a'),
    states: () => stage.reads.states(['a']),
    versions: () => stage.reads.versions(['a']),
    withState: () => stage.reads.withState('*'),
    lastId: () => stage.reads.lastId()
  }
  for (const [name, question] of Object.entries(ask)) {
    stage.error = new Error('Command timed out')
    await t.rejects(
      question(),
      { name: BrokerUnavailable.name, message: 'Redis did not answer in time' },
      name
    )
    stage.error = new Error("Stream isn't writeable and enableOfflineQueue options is false")
    await t.rejects(question(), { message: 'no connection to Redis' }, name)
  }
})
