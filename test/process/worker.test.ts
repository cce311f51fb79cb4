import { EventEmitter } from 'node:events'
import t from 'tap'
import { Metrics } from '../../src/metrics.ts'
import type { Order, Word } from '../../src/process/messages.ts'
import { obey, type Channel } from '../../src/process/worker.ts'
import { HeldClock, settled } from '../support/clock.ts'

/** A channel to a supervisor that takes a message only when the test lets it, or at once. */
class Stage extends EventEmitter {
  connected = true
  readonly words: Word[] = []
  /** Takes what was said; undefined while that is done at once. */
  waiting: (() => void)[] | undefined

  send(word: Word, _handle: unknown, _options: unknown, said: () => void): boolean {
    // as another process would get it
    this.words.push(structuredClone(word))
    if (this.waiting) this.waiting.push(said)
    else said()
    return true
  }

  order(order: Order): Promise<void> {
    this.emit('message', order)
    return settled()
  }
}

function workerOn(stage: Stage) {
  const clock = new HeldClock()
  const metrics = new Metrics('0.0.0')
  const stops: number[] = []
  const tell = obey(
    {
      stop: () => stops.push(clock.now()),
      measure: () => metrics.registry.getMetricsAsJSON(),
      count: () => metrics.counts()
    },
    stage as unknown as Channel,
    clock
  )
  return { clock, metrics, stops, tell }
}

/** How many events a worker said that it had published. */
function publishedIn(word: Word | undefined): number | undefined {
  const measured = word?.word === 'counted' ? word.counts : word?.word === 'measured' ? word.measured : []
  return measured.find(({ name }) => name === 'ringside_events_published_total')?.values[0]?.value
}

t.test('every second it tells what it has counted, and nothing else', async t => {
  const stage = new Stage()
  const { clock, metrics } = workerOn(stage)
  metrics.eventsPublished.inc({ feed: 'events' }, 2)
  await clock.advance(999)
  t.equal(stage.words.length, 0)
  await clock.advance(1)
  metrics.eventsPublished.inc({ feed: 'events' }, 3)
  await clock.advance(1000)
  t.strictSame(
    stage.words.map(({ word }) => word),
    ['counted', 'counted']
  )
  t.strictSame(stage.words.map(publishedIn), [2, 5])
})

t.test('but not before it could say what it had to say', async t => {
  const stage = new Stage()
  stage.waiting = []
  const { clock } = workerOn(stage)
  await clock.advance(10_000)
  t.equal(stage.words.length, 1)
  stage.waiting.forEach(said => said())
  await settled()
  await clock.advance(1000)
  t.equal(stage.words.length, 2)
})

t.test('its last words are said when they have left', async t => {
  const stage = new Stage()
  stage.waiting = []
  const { metrics, tell } = workerOn(stage)
  metrics.eventsPublished.inc({ feed: 'events' }, 4)
  let isSaid = false
  const said = tell().then(() => (isSaid = true))
  await settled()
  t.equal(publishedIn(stage.words[0]), 4)
  t.notOk(isSaid)
  stage.waiting.forEach(done => done())
  await said
})

t.test('without its supervisor it says nothing, and does not wait', async t => {
  const stage = new Stage()
  stage.connected = false
  const { clock, tell } = workerOn(stage)
  await tell()
  await clock.advance(5000)
  t.strictSame(stage.words, [])
})

t.test('it stops and measures when it is told to, and no signal stops it', async t => {
  const stage = new Stage()
  const { metrics, stops } = workerOn(stage)
  for (const signal of ['SIGINT', 'SIGTERM']) t.ok(stage.emit(signal), `${signal} is heard`)
  metrics.eventsPublished.inc({ feed: 'events' }, 4)
  await stage.order({ order: 'measure', id: 7 })
  t.match(stage.words, [{ word: 'measured', id: 7 }])
  t.equal(publishedIn(stage.words[0]), 4)
  t.strictSame(stops, [])
  await stage.order({ order: 'stop' })
  t.equal(stops.length, 1)
})
