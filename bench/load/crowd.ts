import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { LOAD_CORE, pinned, script } from '../machine.ts'
import { peers } from '../peers.ts'
import { Subscribers } from './subscribers.ts'

/** What a crowd can be told to do. */
export type Order =
  | { readonly order: 'open'; readonly count: number }
  | { readonly order: 'wait'; readonly events: number }
  /** A part of the connections is reset. */
  | { readonly order: 'vanish'; readonly part: number }

/** How it stands afterwards. */
export interface Standing {
  readonly streams: number
  readonly events: number
  readonly refusal: string
}

/** Subscribers in a process of their own: one alone can't have more than its descriptors allow. */
export class Crowd {
  readonly #process: ChildProcess

  constructor(peer: string, port: number) {
    const [execPath, [...execArgv]] = pinned(LOAD_CORE, process.execPath, [])
    this.#process = fork(script('load/crowd'), [peer, String(port)], { execPath, execArgv })
  }

  async tell(order: Order): Promise<Standing> {
    const answered = once(this.#process, 'message')
    this.#process.send(order)
    return (await answered)[0] as Standing
  }

  async stop(): Promise<void> {
    const ended = once(this.#process, 'exit')
    this.#process.kill('SIGKILL')
    await ended
  }
}

if (process.argv[1] === import.meta.filename) {
  const [, , name, port] = process.argv
  const subscribers = new Subscribers(
    peers.find(peer => peer.name === name)!,
    Number(port)
  )
  process.on('disconnect', () => process.exit())
  process.on('message', async (told: Order) => {
    if (told.order === 'open') await subscribers.open(told.count)
    else if (told.order === 'wait') await subscribers.received(told.events, 3000)
    else {
      const leaving = [...subscribers.sockets].slice(0, Math.round(subscribers.sockets.size * told.part))
      await subscribers.close(true, leaving)
    }
    const { streams, events, refusal } = subscribers
    process.send!({ streams, events, refusal } satisfies Standing)
  })
}
