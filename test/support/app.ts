import { request, type IncomingHttpHeaders, type OutgoingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import { readSettings } from '../../src/config.ts'
import { createServer } from '../../src/process/server.ts'

/** Where a server under test listens. */
export interface Address {
  readonly url: string
  readonly port: number
}

/** A server in this process. */
export interface TestServer extends Address {
  readonly app: FastifyInstance
}

/** An answer that was read whole. */
export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  readonly json: () => Record<string, unknown>
}

export interface Ask {
  readonly method?: string
  readonly headers?: OutgoingHttpHeaders
  readonly body?: string | Uint8Array
}

/** A server on a free port; it closes at the end of the test. */
export async function build(t: Test, env: Record<string, string> = {}): Promise<TestServer> {
  const app = await createServer(readSettings({ PORT: '0', DEMO: 'false', LOG_LEVEL: 'silent', ...env }))
  t.teardown(() => app.close())
  const url = await app.listen({ host: '127.0.0.1', port: 0 })
  return { app, url, port: (app.server.address() as AddressInfo).port }
}

/** One request on a connection of its own, with nothing added to it: no Accept, no Content-Type. */
export function ask(
  { port }: Pick<Address, 'port'>,
  path: string,
  { method = 'GET', headers = {}, body }: Ask = {}
) {
  return new Promise<Answer>((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, path, method, headers, agent: false }, response => {
      const chunks: Buffer[] = []
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('error', reject)
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString()
        const json = () => JSON.parse(text) as Record<string, unknown>
        resolve({ status: response.statusCode!, headers: response.headers, text, json })
      })
    })
    sent.on('error', reject)
    sent.end(body)
  })
}

export function post(
  server: Pick<Address, 'port'>,
  path: string,
  body: string | Uint8Array,
  headers: OutgoingHttpHeaders = {}
) {
  return ask(server, path, { method: 'POST', headers, body })
}

/** Publishes text on a topic; the answer is its id. */
export async function publish(
  server: Pick<Address, 'port'>,
  topic: string,
  data: string | Uint8Array
): Promise<string> {
  const answer = await post(server, `/events/${topic}`, data)
  if (answer.status !== 201) throw new Error(`not published: ${answer.status} ${answer.text}`)
  return answer.json()['id'] as string
}

/** Publishes events in one batch; the answer is their ids. */
export async function publishAll(
  server: Pick<Address, 'port'>,
  events: readonly object[]
): Promise<string[]> {
  const answer = await post(server, '/events', JSON.stringify(events), { 'content-type': 'application/json' })
  if (answer.status !== 201) throw new Error(`not published: ${answer.status} ${answer.text}`)
  return answer.json()['ids'] as string[]
}

/** The metrics of a server, by name and labels as they are written: `ringside_connections{transport="sse"}`. */
export async function metricsOf(server: Pick<Address, 'port'>): Promise<Map<string, number>> {
  const { text } = await ask(server, '/metrics')
  const lines = text.split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map(line => {
      const space = line.lastIndexOf(' ')
      return [line.slice(0, space), Number(line.slice(space + 1))]
    })
  )
}

/** Asserts that an answer is a problem of this status, as RFC 9457 has it, and gives back what it says. */
export function isProblem(t: Test, answer: Answer, status: number, says: RegExp): Record<string, unknown> {
  t.equal(answer.status, status, `${status} for ${says}`)
  t.match(answer.headers['content-type'], /^application\/problem\+json(;|$)/)
  const problem = answer.json()
  t.match(problem, { type: String, title: String, status, detail: says })
  t.notMatch(answer.text, /\bat .*:\d+:\d+|node_modules|\.[jt]s:\d/, 'no stack')
  return problem
}
