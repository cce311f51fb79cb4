import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { LOAD_CORE, pinned, script } from '../machine.ts'
import { peers } from '../peers.ts'
import { Subscribers } from './subscribers.ts'

/** How many connections a crowd opens at a time. */
export const CONNECTING = 128

/** How long nothing may come before a crowd no longer waits for more. */
const PATIENCE_MS = 3000

/** What a crowd can be told to do. */
type Order =
  | { readonly order: 'open'; readonly count: number; readonly from?: Absence }
  | { readonly order: 'wait'; readonly events: number }
  /** A part of the connections is reset. */
  | { readonly order: 'vanish'; readonly part: number }

/** Where streams come back from: the cursor that all of them have, and how many events each has missed. */
export interface Absence {
  readonly after: string
  readonly missed: number
}

/** How it stands afterwards. */
interface Standing {
  readonly streams: number
  readonly events: number
  readonly refusal: string
}

/** What came until each stream had what it was to have. */
export interface Arrival {
  readonly events: number
  readonly milliseconds: number
}

/** Subscribers in processes of their own: one alone can't have more than its descriptors allow. */
export class Crowds {
  /** Why a stream was refused; empty when none was. */
  refusal = ''
  readonly #processes: readonly ChildProcess[]
  #standings: Standing[]

  constructor(peer: string, port: number, count: number) {
    const [execPath, [...execArgv]] = pinned(LOAD_CORE, process.execPath, [])
    this.#processes = Array.from({ length: count }, () =>
      fork(script('load/crowd'), [peer, String(port)], { execPath, execArgv })
    )
    this.#standings = this.#processes.map(() => ({ streams: 0, events: 0, refusal: '' }))
  }

  /** Streams that are open, as the load has them. */
  get streams(): number {
    return sum(this.#standings.map(({ streams }) => streams))
  }

  /** Opens so many streams, spread over the processes, until each has begun, or was refused, and has what it missed. */
  async open(count: number, from?: Absence): Promise<Arrival> {
    const each = shares(count, this.#processes.length)
    const arrival = this.#arrival()
    await this.#tell(index => ({ order: 'open', count: each[index]!, ...(from && { from }) }))
    return arrival()
  }

  /** A part of the connections of each process vanishes by a reset. */
  async vanish(part: number): Promise<void> {
    await this.#tell(() => ({ order: 'vanish', part }))
  }

  /** Does something, and waits until so many events have come on each stream that is open, or none come any more. */
  async receive(eventsEach: number, act: () => void): Promise<Arrival> {
    await this.#tell(() => ({ order: 'wait', events: 0 }))
    const before = this.#standings
    const arrival = this.#arrival()
    act()
    await this.#tell(index => {
      const { events, streams } = before[index]!
      return { order: 'wait', events: events + streams * eventsEach }
    })
    return arrival()
  }

  async stop(): Promise<void> {
    await Promise.all(
      this.#processes.map(async child => {
        if (child.exitCode !== null || child.signalCode !== null) return
        const ended = once(child, 'exit')
        child.kill('SIGKILL')
        await ended
      })
    )
  }

  /** What has come since this was called. */
  #arrival(): () => Arrival {
    const [started, before] = [performance.now(), this.#events]
    return () => ({
      events: this.#events - before,
      milliseconds: Math.round(performance.now() - started)
    })
  }

  get #events(): number {
    return sum(this.#standings.map(({ events }) => events))
  }

  async #tell(orderOf: (index: number) => Order): Promise<void> {
    this.#standings = await Promise.all(this.#processes.map((child, index) => tell(child, orderOf(index))))
    this.refusal ||= this.#standings.find(({ refusal }) => refusal !== '')?.refusal ?? ''
  }
}

/** Rejects when the process ends instead. */
async function tell(child: ChildProcess, order: Order): Promise<Standing> {
  const ending = new AbortController()
  const { signal } = ending
  const gone = once(child, 'exit', { signal }).then(() => {
    throw new Error('a process of the load has ended')
  })
  gone.catch(() => {})
  const answered = once(child, 'message', { signal })
  answered.catch(() => {})
  child.send(order)
  try {
    return (await Promise.race([answered, gone]))[0] as Standing
  } finally {
    ending.abort()
  }
}

function shares(count: number, parts: number): number[] {
  return Array.from(
    { length: parts },
    (_, index) => Math.floor((count * (index + 1)) / parts) - Math.floor((count * index) / parts)
  )
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0)
}

if (process.argv[1] === import.meta.filename) {
  const [, , name, port] = process.argv
  const subscribers = new Subscribers(
    peers.find(peer => peer.name === name)!,
    Number(port)
  )
  process.on('disconnect', () => process.exit())
  process.on('message', async (told: Order) => {
    if (told.order === 'open') {
      const { count, from } = told
      const expected = subscribers.events + count * (from?.missed ?? 0)
      await subscribers.open(count, { concurrency: CONNECTING, ...(from && { after: from.after }) })
      await subscribers.received(expected, PATIENCE_MS)
    } else if (told.order === 'wait') await subscribers.received(told.events, PATIENCE_MS)
    else {
      const leaving = [...subscribers.sockets].slice(0, Math.round(subscribers.sockets.size * told.part))
      await subscribers.close(true, leaving)
    }
    const { streams, events, refusal } = subscribers
    process.send!({ streams, events, refusal } satisfies Standing)
  })
}
