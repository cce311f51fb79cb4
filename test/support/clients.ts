import { spawn } from 'node:child_process'
import { EventSource as NpmEventSource } from 'eventsource'
import type { Test } from 'tap'
import { Agent, EventSource as UndiciEventSource } from 'undici'
import { Inbox } from './inbox.ts'
import { StrictParser, type Frame } from './sse-parser.ts'

/** What a page's listener is given. */
export interface Received {
  readonly type: string
  readonly data: string
  readonly lastEventId: string
}

/** A client that reconnects by itself, as a browser's does. */
export interface Client {
  readonly received: Inbox<Received>
  /** How often its connection was lost. */
  readonly errors: () => number
  close(): void
}

/** Opens an EventSource that listens to these types, besides `message`. */
export type OpenClient = (t: Test, url: string, types?: readonly string[]) => Client

const OWN_TYPES = ['cursor', 'gap', 'goodbye', 'heartbeat']

/** The npm package `eventsource` 4: takes no id from a block without data. */
export const npmClient: OpenClient = (t, url, types = []) => listenTo(t, new NpmEventSource(url), types)

/** undici's EventSource: takes an id from any block. */
export const undiciClient: OpenClient = (t, url, types = []) => {
  const dispatcher = new Agent()
  t.teardown(() => dispatcher.destroy())
  return listenTo(t, new UndiciEventSource(url, { dispatcher }), types)
}

interface EventTargetLike {
  addEventListener(type: string, listener: (event: Event) => void): void
  close(): void
}

function listenTo(t: Test, source: EventTargetLike, types: readonly string[]): Client {
  const received = new Inbox<Received>()
  let errors = 0
  for (const type of ['message', ...OWN_TYPES, ...types]) {
    source.addEventListener(type, event => {
      const { data, lastEventId } = event as Event & { data: string; lastEventId: string }
      received.push({ type, data, lastEventId })
    })
  }
  source.addEventListener('error', () => errors++)
  t.teardown(() => source.close())
  return { received, errors: () => errors, close: () => source.close() }
}

/** `curl -N`: every frame that it writes, as soon as it does. */
export interface Curl {
  readonly frames: Inbox<Frame>
  /** Its exit status, once it has ended. */
  readonly exited: Promise<number | null>
  close(): void
}

export function curl(t: Test, url: string, args: readonly string[] = []): Curl {
  const child = spawn('curl', ['-sS', '-N', ...args, url], { stdio: ['ignore', 'pipe', 'ignore'] })
  const frames = new Inbox<Frame>()
  const parser = new StrictParser()
  child.stdout.on('data', (chunk: Buffer) => {
    for (const frame of parser.push(chunk)) frames.push(frame)
  })
  const exited = new Promise<number | null>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', code => {
      frames.end(`curl has ended (${code})`)
      resolve(code)
    })
  })
  t.teardown(() => child.kill())
  return { frames, exited, close: () => child.kill() }
}
