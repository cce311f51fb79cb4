import t from 'tap'
import { Metrics, type Measured } from '../../src/metrics.ts'
import { Measurements } from '../../src/process/measurements.ts'

const PUBLISHED = 'ringside_events_published_total{feed="events"}'
const OPEN = 'ringside_connections{transport="sse"}'

/** A worker that has published so many events, each of which took the broker 0.02 s, and has so many streams. */
async function measuredBy(events: number, streams = 0): Promise<Measured> {
  const metrics = new Metrics('0.0.0')
  metrics.eventsPublished.inc({ feed: 'events' }, events)
  for (let index = 0; index < events; index++) metrics.brokerSeconds.observe({ op: 'append' }, 0.02)
  metrics.connections.set({ transport: 'sse' }, streams)
  return metrics.registry.getMetricsAsJSON()
}

/** The samples of a text, by name and labels. */
async function samplesOf(text: Promise<string>): Promise<Map<string, number>> {
  const lines = (await text).split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return new Map(lines.map(line => [line.replace(/ [^ ]+$/, ''), Number(/[^ ]+$/.exec(line))]))
}

/** Workers that answer a scrape, each of which has told at least as much before; an odd one is in slot 1, an even one in 0. */
async function scrape(measurements: Measurements, answers: Record<number, Measured>) {
  const byNumber = Object.entries(answers).map(([worker, measured]) => [Number(worker), measured] as const)
  for (const [worker, measured] of byNumber) measurements.keep(worker % 2, worker, measured)
  return samplesOf(measurements.text(new Map(byNumber)))
}

t.test('what a worker has counted stays when it is gone; what it was at goes', async t => {
  const measurements = new Measurements(2)
  const both = await scrape(measurements, { 1: await measuredBy(3, 10), 2: await measuredBy(4, 20) })
  t.equal(both.get(PUBLISHED), 7)
  t.equal(both.get(OPEN), 30)
  measurements.bury(1, 1)
  const left = await scrape(measurements, { 2: await measuredBy(5, 21) })
  t.equal(left.get(PUBLISHED), 8)
  t.equal(left.get(OPEN), 21, 'a gauge is of those who live')
  t.equal(left.get('ringside_broker_seconds_count{op="append"}'), 8, 'a histogram, too')
  t.equal(left.get('ringside_broker_seconds_bucket{le="0.025",op="append"}'), 8)
  t.equal(left.get('ringside_broker_seconds_bucket{le="0.01",op="append"}'), 0)
  t.equal(left.get('ringside_broker_seconds_sum{op="append"}')!.toFixed(2), '0.16')
  const replaced = await scrape(measurements, { 2: await measuredBy(5, 21), 3: await measuredBy(1) })
  t.equal(replaced.get(PUBLISHED), 9)
})

t.test('of one that does not answer there is what it has counted last', async t => {
  const measurements = new Measurements(2)
  measurements.keep(1, 1, await measuredBy(3, 10))
  measurements.keep(1, 1, await measuredBy(4, 10))
  const samples = await scrape(measurements, { 2: await measuredBy(1, 5) })
  t.equal(samples.get(PUBLISHED), 5)
  t.equal(samples.get(OPEN), 5)
})

t.test('one that dies after its answer counts once', async t => {
  const measurements = new Measurements(2)
  const answers = { 1: await measuredBy(3, 10), 2: await measuredBy(4) }
  await scrape(measurements, answers)
  measurements.bury(0, 2)
  const samples = await samplesOf(measurements.text(new Map([[2, answers[2]]])))
  t.equal(samples.get(PUBLISHED), 7)
})

t.test('nor does a scrape lose one that dies while its text is made', async t => {
  const measurements = new Measurements(2)
  measurements.keep(1, 1, await measuredBy(3))
  measurements.keep(0, 2, await measuredBy(4))
  measurements.bury(1, 1)
  const texts = [measurements.text(new Map())]
  measurements.bury(0, 2)
  texts.push(measurements.text(new Map()))
  for (const text of texts) t.equal((await samplesOf(text)).get(PUBLISHED), 7)
})

t.test('one that has told nothing leaves nothing; many leave no more than one does', async t => {
  const measurements = new Measurements(2)
  measurements.bury(1, 1)
  t.equal(await measurements.text(new Map()), '\n')
  const sizes = new Set<number>()
  for (let worker = 2; worker < 100; worker++) {
    measurements.keep(worker % 2, worker, await measuredBy(1, 1))
    measurements.bury(worker % 2, worker)
    measurements.bury(worker % 2, worker)
    const samples = await samplesOf(measurements.text(new Map()))
    t.equal(samples.get(PUBLISHED), worker - 1)
    sizes.add(samples.size)
  }
  t.equal(sizes.size, 1)
})

t.test('a sum of seconds never goes down by a digit', async t => {
  const measurements = new Measurements(2)
  const NAME = 'ringside_broker_seconds_sum{op="append"}'
  const took = async (seconds: number) => {
    const metrics = new Metrics('0.0.0')
    metrics.brokerSeconds.observe({ op: 'append' }, seconds)
    return metrics.registry.getMetricsAsJSON()
  }
  let last = 0
  const see = async (living: Record<number, Measured>) => {
    const value = (await scrape(measurements, living)).get(NAME)!
    t.ok(value >= last, `${value} after ${last}`)
    last = value
  }
  let living: Record<number, Measured> = { 0: await took(0.1) }
  // each worker lives together with the one before and the one after it
  for (let worker = 1; worker < 30; worker++) {
    living = { [worker - 1]: living[worker - 1]!, [worker]: await took((worker % 7) / 10) }
    await see(living)
    measurements.bury((worker - 1) % 2, worker - 1)
    await see({ [worker]: living[worker]! })
  }
})

t.test('the counts alone are counters and histograms, with what they had', async t => {
  const metrics = new Metrics('0.0.0')
  metrics.eventsPublished.inc({ feed: 'events' }, 3)
  metrics.connections.set({ transport: 'sse' }, 10)
  const counts = await metrics.counts()
  t.strictSame(new Set(counts.map(({ type }) => String(type))), new Set(['counter', 'histogram']))
  const all = await metrics.registry.getMetricsAsJSON()
  const named = (measured: Measured, name: string) => measured.find(each => each.name === name)
  for (const name of ['ringside_events_published_total', 'ringside_broker_seconds']) {
    t.strictSame(named(counts, name), named(all, name))
  }
  t.strictSame(
    counts.map(({ name }) => name).sort(),
    all
      .filter(({ type }) => String(type) !== 'gauge')
      .map(({ name }) => name)
      .sort()
  )
})
