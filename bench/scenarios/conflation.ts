import { audience, during, RINGSIDE, round, type Scenario, type Window } from '../scenario.ts'

const EVENTS_PER_SECOND = 500

export const conflation: Scenario = {
  name: 'conflation',
  about:
    'A topic with 500 events a second: the processor time of the server with nobody there, with 1,000 subscribers at ' +
    '`rate=2`, and with 1,000 that get everything.',
  peers: RINGSIDE,
  columns: [
    { key: 'nobody', title: 'nobody, % of a core', digits: 1 },
    { key: 'conflated', title: 'rate=2, %', digits: 1 },
    { key: 'everything', title: 'everything, %', digits: 1 },
    { key: 'ratio', title: 'everything ÷ rate=2', digits: 1 },
    { key: 'netRatio', title: 'less what nobody costs', digits: 1 },
    { key: 'conflatedEvents', title: 'rate=2: events/s a subscriber', digits: 2 },
    { key: 'everythingEvents', title: 'everything: events/s a subscriber', digits: 0 }
  ],
  async measure(bench) {
    const count = bench.size(1000, 100)
    const seconds = bench.size(8, 0.5)
    const server = await bench.start()
    const publishers = await bench.publishers(server, 1)
    const publish = () => publishers.paced(EVENTS_PER_SECOND, seconds)
    const percent = ({ cpu, seconds }: Window) => round(cpu / seconds / 1e4, 2)
    const perSubscriber = ({ events, seconds }: Window) => round(events / seconds / count, 2)

    await publish()
    const nobody = await during(server, bench.subscribers(server), publish)
    const some = bench.subscribers(server)
    await some.open(count, { rate: 2 })
    await publish()
    const conflated = await during(server, some, publish)
    await some.close()
    const all = await audience(bench, server, publishers, count)
    await publish()
    const everything = await during(server, all, publish)
    return {
      nobody: percent(nobody),
      conflated: percent(conflated),
      everything: percent(everything),
      ratio: round(everything.cpu / conflated.cpu, 1),
      netRatio: round((everything.cpu - nobody.cpu) / (conflated.cpu - nobody.cpu), 1),
      conflatedEvents: perSubscriber(conflated),
      everythingEvents: perSubscriber(everything)
    }
  }
}
