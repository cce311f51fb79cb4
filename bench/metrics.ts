import { setTimeout as sleep } from 'node:timers/promises'
import type { Server } from './load/server.ts'

/** A figure of Ringside's own metrics, summed over the labels that aren't named. */
export async function metric(server: Server, name: string, labels = ''): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${server.port}/metrics`)).text()
  return text
    .split('\n')
    .filter(line => line.startsWith(name) && /^[{ ]/.test(line.slice(name.length)) && line.includes(labels))
    .reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0)
}

/** Waits until an instance, with all its workers, has its Redis. */
export async function connected(server: Server): Promise<void> {
  while ((await metric(server, 'ringside_broker_up')) !== 1) await sleep(50)
}
