import { closedLoop, type LoopOptions } from '../load/closed-loop.ts'
import type { Figures, Scenario } from '../scenario.ts'

const CONNECTIONS = 64
const BATCH = 50

export const publish: Scenario = {
  name: 'publish',
  about:
    'Events published a second with nobody there: 64 connections, each of which sends its next request when the one ' +
    'before was answered. One event a request, then batches of 50, as a JSON array and as ndjson, where there is such a ' +
    'thing. Bare node:http reads and parses what it is sent. How busy the server’s core was tells where the load took ' +
    'longer than the server: there the processor time is to be compared, not the rate.',
  peers: ['net', 'http', 'ringside', 'nchan', 'mercure', 'centrifugo', 'centrifuge'],
  quickPeers: ['http', 'ringside'],
  columns: [
    { key: 'single', title: 'one a request: events/s', floor: 'http' },
    { key: 'singleCpu', title: 'CPU an event, µs', digits: 1, floor: 'http' },
    { key: 'singleCore', title: 'core, %' },
    { key: 'json', title: '50 as JSON: events/s', floor: 'http' },
    { key: 'jsonCpu', title: 'CPU an event, µs', digits: 1, floor: 'http' },
    { key: 'jsonCore', title: 'core, %' },
    { key: 'ndjson', title: '50 as ndjson: events/s' },
    { key: 'ndjsonCpu', title: 'CPU an event, µs', digits: 1 },
    { key: 'ndjsonCore', title: 'core, %' }
  ],
  async measure(bench) {
    const server = await bench.start()
    const publishers = await bench.publishers(server, CONNECTIONS)
    const loop = async (name: string, options: Omit<LoopOptions, 'underWay'>): Promise<Figures> => {
      const { rate, cpu, core } = await closedLoop(bench, server, publishers, { underWay: 1, ...options })
      return { [name]: rate, [`${name}Cpu`]: cpu, [`${name}Core`]: core }
    }
    let figures = await loop('single', { size: 1 })
    for (const format of bench.peer.batchFormats ?? [])
      figures = { ...figures, ...(await loop(format, { size: BATCH, format })) }
    return figures
  }
}
