import type { Scenario } from '../scenario.ts'
import { oneAtATime } from './fan-out.ts'
import { asManyAsItTakes } from './saturated.ts'

export const websocket: Scenario = {
  name: 'websocket',
  about:
    'The same as fan-out, and then as saturated, over WebSocket: what a delivery costs the server and how long it takes ' +
    'one event at a time, and how many there are when the server is never idle. Nothing is compressed.',
  peers: ['net', 'net-tick', 'ringside', 'ringside-ws', 'ws', 'socket.io'],
  quickPeers: ['ringside-ws'],
  columns: [
    { key: 'cpu', title: 'CPU a delivery, µs', digits: 2, floor: 'net' },
    { key: 'p50', title: 'p50, ms', digits: 1 },
    { key: 'p99', title: 'p99, ms', digits: 1, floor: 'net' },
    { key: 'deliveries', title: 'saturated: deliveries/s', floor: 'net-tick' },
    { key: 'saturatedCpu', title: 'CPU a delivery, µs', digits: 3, floor: 'net-tick' }
  ],
  async measure(bench) {
    const one = await oneAtATime(bench)
    const { deliveries, cpu } = await asManyAsItTakes(bench)
    return { ...one, deliveries: deliveries!, saturatedCpu: cpu! }
  }
}
