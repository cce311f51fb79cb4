import t from 'tap'
import { Demo } from '../../src/feeds/demo.ts'
import type { Progress } from '../../src/feeds/demo/job.ts'
import { HeldClock } from '../support/clock.ts'

const WRITTEN = { created: false, version: '1-0' }

t.test(
  'once a second: prices on symbols of its own, and a job that rings a bell when it is done',
  async t => {
    const clock = new HeldClock()
    const symbols = new Set<string>()
    const progress: Progress[] = []
    const rung: unknown[] = []
    const demo = await Demo.open({
      publisher: {
        publish: async events => {
          for (const { topic, data } of events)
            if (topic === 'jobs/demo') progress.push(JSON.parse(String(data)) as Progress)
          return []
        }
      },
      tickers: {
        publish: async quotes => {
          for (const { symbol } of quotes) symbols.add(symbol)
          return { ids: [], replayed: false }
        }
      },
      dashboards: { put: async () => WRITTEN, patch: async () => WRITTEN },
      notifications: {
        send: async (to, message) => {
          rung.push({ to, ...message })
          return { ids: {}, replayed: false }
        }
      },
      ...{ clock, logger: { debug: (error: unknown) => t.fail(String(error)) }, connections: () => 0 }
    })
    t.teardown(() => demo.stop())
    demo.start()
    for (let second = 0; second < 61; second++) await clock.advance(1000)

    t.strictSame([...symbols].sort(), [
      ...['DEMO:AAPL', 'DEMO:AMZN', 'DEMO:GOOG', 'DEMO:IBM', 'DEMO:MSFT', 'DEMO:^GSPC']
    ])
    const done = progress.map(each => each.done)
    t.strictSame(done.slice(0, 2), [86, 172])
    t.ok(done.slice(0, 60).every((each, at) => each > (done[at - 1] ?? 0)))
    t.equal(done[59], progress[59]!.of)
    // the highest close that is recorded
    t.match(progress[59]!.highest, { date: '2020-02-19', price: 3386.149902 })
    t.equal(done[60], 86, 'it begins anew')
    t.match(rung, [{ to: ['demo'], title: 'The job is done', body: /3386\.15, on 2020-02-19/ }])
  }
)
