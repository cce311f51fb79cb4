import t from 'tap'
import { Announcements } from '../../../src/broker/redis/announcements.ts'
import { formatPosition } from '../../../src/event.ts'
import { announcement, at } from './stage.ts'

/** Announcements of one shard, and what they have led to, in words. */
class Stage {
  readonly said: string[] = []
  readonly announcements: Announcements

  constructor() {
    this.announcements = new Announcements(0, {
      event: ({ topic, id }) => this.said.push(`${topic} ${id.ms}`),
      tick: position => this.said.push(`tick ${formatPosition(position)}`),
      jump: position => this.said.push(`jump ${formatPosition(position)}`),
      gap: filters => this.said.push(`gap ${filters.join(' ')}`),
      live: live => this.said.push(live ? 'live' : 'down'),
      fork: () => {
        this.said.push('fork')
        this.announcements.goDown()
      }
    })
  }

  /** An event on the channel of its topic, or of another filter. */
  event(topic: string, ms: number, prev: number | null = null, filter = topic): void {
    this.announcements.event(filter, announcement(topic, ms, { prev }))
  }

  /** One that is never stored; `prev` was. */
  ephemeral(topic: string, ms: number, prev: number | null): void {
    this.announcements.event(topic, announcement(topic, ms, { prev, expires: '0' }))
  }

  /** What was said since this was asked last. */
  get news(): string[] {
    return this.said.splice(0)
  }
}

/** Live from 10 on, with the topics `a` and `b` listened to. */
function begin(): Stage {
  const stage = new Stage()
  stage.announcements.tick(at(1))
  for (const filter of ['a', 'b']) stage.announcements.add(filter).isListened = true
  stage.announcements.tick(at(10))
  stage.said.length = 0
  return stage
}

t.test('events are handed over as they come', async t => {
  const stage = begin()
  stage.event('a', 11)
  stage.event('b', 12, 5)
  stage.event('a', 13, 11)
  t.strictSame(stage.news, ['a 11', 'b 12', 'a 13'])
  t.strictSame(stage.announcements.position, at(13))
})

t.test('nothing counts before the first tick, and that is a jump', async t => {
  const stage = new Stage()
  stage.announcements.add('a').isListened = true
  stage.event('a', 5)
  t.strictSame(stage.news, [])
  t.notOk(stage.announcements.isLive)
  stage.announcements.tick(at(10))
  t.strictSame(stage.news, ['jump 10-0', 'live'])
  stage.event('a', 11)
  t.strictSame(stage.news, ['a 11'])
})

t.test('one that was dropped shows by `prev`, and is a jump', async t => {
  const stage = begin()
  stage.event('a', 11)
  // 12 is dropped
  stage.event('a', 13, 12)
  t.strictSame(stage.news, ['a 11', 'jump 13-0'], 'and 13 is read as well')
  stage.event('a', 14, 13)
  stage.event('b', 15, 9)
  t.strictSame(stage.news, ['a 14', 'b 15'], 'what follows is complete again')
})

t.test('the first one of a filter that was dropped shows as well', async t => {
  const stage = begin()
  stage.event('a', 12, 11)
  t.strictSame(stage.news, ['jump 12-0'])
})

t.test('one that was dropped and lies before what was handed over has no place any more: a gap', async t => {
  const stage = begin()
  // a 11 is dropped
  stage.event('b', 12)
  stage.event('a', 13, 11)
  t.strictSame(stage.news, ['b 12', 'gap a', 'a 13'])
  stage.event('a', 14, 13)
  t.strictSame(stage.news, ['a 14'])
})

t.test('an ephemeral one is handed over in its place, is not missed, and is no checkpoint', async t => {
  const stage = begin()
  stage.ephemeral('a', 11, null)
  t.strictSame(stage.announcements.checkpoints, [])
  stage.event('a', 12)
  stage.ephemeral('a', 13, 12)
  // 14 is dropped
  stage.ephemeral('a', 15, 12)
  stage.event('a', 16, 12)
  stage.ephemeral('a', 17, 16)
  t.strictSame(stage.news, ['a 11', 'a 12', 'a 13', 'a 15', 'a 16', 'a 17'])
  t.match(stage.announcements.checkpoints, [{ id: at(16) }])
  t.strictSame(stage.announcements.position, at(17))
  // 18 is dropped, and is stored
  stage.ephemeral('a', 19, 18)
  t.strictSame(stage.news, ['jump 19-0'], 'it shows what was missed before it')
  stage.event('a', 20, 18)
  stage.ephemeral('a', 21, 12)
  t.strictSame(stage.news, ['a 20', 'fork', 'down'], 'and what the store has lost')
})

t.test('an event on two channels is handed over once', async t => {
  const stage = begin()
  stage.announcements.add('*').isListened = true
  stage.announcements.tick(at(11))
  t.strictSame(stage.news, ['tick 11-0'])
  stage.event('a', 12)
  stage.event('a', 12, null, '*')
  stage.event('c', 13, null, '*')
  t.strictSame(stage.news, ['a 12', 'c 13'])
})

t.test('a topic is complete from the earlier one of its two bases', async t => {
  const stage = begin()
  stage.event('a', 12)
  stage.announcements.add('*').isListened = true
  stage.announcements.tick(at(20))
  t.strictSame(stage.news, ['a 12', 'tick 20-0'])
  // 15 lay before the base of the wildcard, and after the one of the topic
  stage.event('a', 21, 15, '*')
  t.strictSame(stage.news, ['gap a', 'a 21'])
})

t.test('a filter counts from the first tick since Redis has confirmed it', async t => {
  const stage = begin()
  const channel = stage.announcements.add('c')
  stage.event('c', 11)
  stage.announcements.tick(at(12))
  stage.event('c', 13)
  t.strictSame(stage.news, ['tick 12-0'], 'not before it is confirmed')
  channel.isListened = true
  stage.event('c', 14, 13)
  t.strictSame(stage.news, [], 'nor before the tick')
  stage.announcements.tick(at(15))
  stage.event('c', 16, 14)
  t.strictSame(stage.news, ['tick 15-0', 'c 16'])
})

t.test('on another connection all filters count from its first tick', async t => {
  const stage = begin()
  stage.announcements.goDown()
  stage.event('a', 11)
  t.strictSame(stage.news, ['down'])
  stage.announcements.tick(at(20))
  t.strictSame(stage.news, ['jump 20-0', 'live'])
  stage.event('a', 21, 11)
  t.strictSame(stage.news, ['a 21'], 'what came meanwhile was read')
})

t.test('a filter that was given up and is taken up again has no link to what was before', async t => {
  const stage = begin()
  stage.event('a', 11)
  stage.announcements.remove('a')
  stage.event('a', 12, 11)
  stage.event('b', 13)
  stage.announcements.add('a').isListened = true
  stage.announcements.tick(at(14))
  stage.event('a', 15, 12)
  t.strictSame(stage.news, ['a 11', 'b 13', 'tick 14-0', 'a 15'])
})

t.test('a filter is not ended by an attempt that was given up', async t => {
  const stage = begin()
  const first = stage.announcements.add('c')
  const second = stage.announcements.add('c')
  stage.announcements.remove('c', first)
  t.strictSame(stage.announcements.filters, ['a', 'b', 'c'])
  stage.announcements.remove('c', second)
  t.strictSame(stage.announcements.filters, ['a', 'b'])
})

t.test('a tick never moves the position back', async t => {
  const stage = begin()
  stage.event('a', 20)
  stage.announcements.tick(at(15))
  t.strictSame(stage.news, ['a 20', 'tick 20-0'])
  t.strictSame(stage.announcements.position, at(20))
  stage.event('b', 18)
  t.strictSame(stage.news, [], 'what lies before it was handed over')
  stage.announcements.goDown()
  stage.announcements.tick(at(16))
  t.strictSame(stage.news, ['down', 'jump 20-0', 'live'])
})

t.test('one that follows on an older one than was handed over shows a fork', async t => {
  const stage = begin()
  stage.event('a', 11)
  stage.event('a', 12, 11)
  t.strictSame(stage.announcements.checkpoints.map(formatId), ['a 12'])
  stage.event('a', 13, 11)
  t.strictSame(stage.news, ['a 11', 'a 12', 'fork', 'down'], 'and is not handed over')
  t.strictSame(stage.announcements.checkpoints.map(formatId), ['a 12', 'a 12'], 'until it is verified')
  stage.announcements.verified()
  t.strictSame(stage.announcements.checkpoints.map(formatId), ['a 12'])
})

t.test('one that follows on nothing is of a store that began anew', async t => {
  const stage = begin()
  stage.event('a', 11)
  stage.event('a', 12)
  t.strictSame(stage.news, ['a 11', 'a 12'])
})

t.test('a loss is a gap of all filters, before what comes after it, and once', async t => {
  const stage = begin()
  stage.event('a', 11)
  stage.announcements.loss(at(20))
  t.strictSame(stage.news, ['a 11', 'tick 20-0', 'gap a b'])
  // the store never had 11
  stage.event('a', 21, 5)
  t.strictSame(stage.news, ['a 21'], 'which follows on whatever is left')
  stage.announcements.loss(at(20))
  stage.announcements.checkLoss(at(20))
  t.strictSame(
    stage.news.filter(each => each.startsWith('gap')),
    []
  )
  stage.announcements.checkLoss(at(30))
  t.strictSame(stage.news, ['gap a b'], 'another one is another gap')
})

t.test('a loss of what was handed over before the connection was lost concerns nobody', async t => {
  const stage = begin()
  stage.event('a', 11)
  stage.announcements.goDown()
  stage.announcements.loss(at(12))
  t.strictSame(stage.news, ['a 11', 'down'], 'while it is down nobody is told')
  stage.announcements.tick(at(20))
  stage.announcements.checkLoss(at(11))
  t.strictSame(stage.news, ['jump 20-0', 'live'], 'who was live had it')
  stage.announcements.checkLoss(at(12))
  t.strictSame(stage.news, ['gap a b'], 'of what came after it, nobody knows')
})

t.test('more topics than are kept: what was handed over needs no links', async t => {
  const stage = begin()
  stage.announcements.add('s/*').isListened = true
  stage.announcements.tick(at(11))
  for (let index = 0; index <= 10_000; index++) stage.event(`s/${index}`, 12 + index, null, 's/*')
  stage.announcements.tick(at(20_000))
  stage.said.length = 0
  stage.event('s/1', 20_001, 13, 's/*')
  stage.event('s/2', 20_002, 12, 's/*')
  t.strictSame(stage.news, ['s/1 20001', 's/2 20002'], 'a fork is no longer looked for among them')
})

function formatId({ topic, id }: { topic: string; id: { ms: number } }): string {
  return `${topic} ${id.ms}`
}
