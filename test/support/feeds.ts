import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import fastifyPlugin from 'fastify-plugin'
import type { Test } from 'tap'
import { ringside } from '../../src/app.ts'
import { systemClock, type Clock } from '../../src/clock.ts'
import { readSettings } from '../../src/config.ts'
import { StreamRequest } from '../../src/net/stream-request.ts'
import { ask, type Address, type Answer, type TestServer } from './app.ts'
import type { Frame } from './sse-parser.ts'

/** The machine's own clock, but for a time of day that a test can move ahead. */
export class ShiftedClock implements Clock {
  readonly after = systemClock.after
  readonly soon = systemClock.soon
  #shift = 0

  now(): number {
    return systemClock.now() + this.#shift
  }

  advance(ms: number): void {
    this.#shift += ms
  }
}

/** A server whose clock the test can move; it closes at the end of the test. */
export async function buildShifted(
  t: Test,
  env: Record<string, string> = {}
): Promise<TestServer & { readonly clock: ShiftedClock }> {
  const clock = new ShiftedClock()
  const app = Fastify({ http: { IncomingMessage: StreamRequest }, forceCloseConnections: 'idle' })
  t.teardown(() => app.close())
  const settings = readSettings({ PORT: '0', DEMO: 'false', LOG_LEVEL: 'silent', ...env })
  await app.register(fastifyPlugin(ringside), { settings, maxConnections: Infinity, clock })
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  return { app, url, clock, port: (app.server.address() as AddressInfo).port }
}

export type Where = Pick<Address, 'port'>

/** Sends JSON, or text that shall be taken for it. */
export function send(
  server: Where,
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {}
): Promise<Answer> {
  return ask(server, path, {
    method,
    headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) })
  })
}

export function getJson(server: Where, path: string, headers: Record<string, string> = {}): Promise<Answer> {
  return ask(server, path, { headers: { accept: 'application/json', ...headers } })
}

/** What an answer must be; throws with what it said when it isn't. */
export async function expectStatus(status: number, answer: Promise<Answer>): Promise<Answer> {
  const got = await answer
  if (got.status !== status) throw new Error(`${got.status} and not ${status}: ${got.text}`)
  return got
}

/** The version in an ETag. */
export function versionIn({ headers }: Answer): string {
  const [, version] = /^"(.+)"$/.exec(headers.etag ?? '') ?? []
  if (version === undefined) throw new Error(`an ETag of ${headers.etag}`)
  return version
}

/** What comes over an SSE stream that a page would listen to: neither `cursor` nor what keeps it alive. */
export function eventsOf(frames: readonly Frame[]): Frame[] {
  return frames.filter(({ event, data }) => data !== undefined && event !== 'cursor')
}

/** The same text for the same JSON value, whatever the order of its members. */
export function canonical(json: string): string {
  return JSON.stringify(JSON.parse(json), (_name, value: unknown) =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? ['object', ...Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))]
      : value
  )
}

/** What a page that keeps a dashboard has after these frames, by the ids that it was told. */
export function follow(frames: readonly Frame[]): Map<string, string> {
  const held = new Map<string, string>()
  let value: unknown
  for (const { id, event, data } of frames) {
    if (event === 'snapshot') value = JSON.parse(data!)
    else if (event === 'patch') value = patched(value, JSON.parse(data!))
    else if (event === 'deleted') value = undefined
    if (id !== undefined) held.set(id, value === undefined ? 'deleted' : canonical(JSON.stringify(value)))
  }
  return held
}

/** MergePatch as RFC 7396 writes it down. */
function patched(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return patch
  const result = isRecord(target) ? target : {}
  for (const name of Object.keys(patch)) {
    if (patch[name] === null) delete result[name]
    else {
      const before = Object.hasOwn(result, name) ? result[name] : undefined
      // an assignment to __proto__ would not make a member
      Object.defineProperty(result, name, {
        ...{ value: patched(before, patch[name]), writable: true, enumerable: true, configurable: true }
      })
    }
  }
  return result
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
