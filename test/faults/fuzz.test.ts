import { existsSync, readdirSync } from 'node:fs'
import { Agent, request as httpRequest, type IncomingHttpHeaders } from 'node:http'
import { connect } from 'node:net'
import { constants, gunzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { WebSocket } from 'ws'
import { ask, metricsOf, type Address } from '../support/app.ts'
import { describe, operationsOf, wrongIn, type Description, type Operation } from '../support/description.ts'
import { eventually, inTime } from '../support/inbox.ts'
import { serve, type Run } from '../support/process.ts'
import { randomFrom } from '../support/random.ts'
import { HOST, INJECTED, Requests, type FuzzRequest } from '../support/requests.ts'
import { StrictParser } from '../support/sse-parser.ts'
import { SECRET, secondsFromNow, tokenFor, tokenOf } from '../support/tokens.ts'

/** How many requests, and where their randomness starts: see CONTRIBUTING.md. */
const REQUESTS = Number(process.env['FUZZ_REQUESTS'] ?? 10_000)
const SEED = Number(process.env['FUZZ_SEED'] ?? 1)

/** How many connections they come over. */
const CONNECTIONS = 8

/** After these parts of all requests it is measured what the server keeps. */
const ROUNDS = [0.2, 0.6, 1]

/** What each request after the first round may leave behind, on average, in bytes. */
const KEPT = 900

/** One request in so many is damaged below what an HTTP client can send. */
const DAMAGED = 20

/** What whatever can't be read as a request, or asks for nothing that is here, is answered with. */
const GENERAL = [400, 401, 404, 408, 413, 414, 415, 417, 431]

/** The end of the connection may overtake the answer to a body of more bytes than this, which is not read to its end. */
const LARGE = 8192

/** What takes a right that only one of the tokens has. */
const WRITES = [
  ...['publishQuotes', 'putDashboard', 'patchDashboard', 'deleteDashboard', 'sendNotifications']
]

/** Whether each operation was served at least once. */
const done = new Map<string, boolean>()

const BY_ID = ['disconnect', 'drainInstance']

const STACK = /\bat .*:\d+:\d+|node_modules|\.[jt]s:\d/

t.setTimeout(120_000 + REQUESTS * 20)
t.comment(`FUZZ_SEED=${SEED} FUZZ_REQUESTS=${REQUESTS}`)

t.test('in development mode', t => fuzz(t, {}, [null], { all: [], some: [] }))

t.test('with keys', async t => {
  const everything = { subscribe: ['**'], publish: ['**'] }
  const all = await tokenFor(everything)
  const some = await tokenFor({ subscribe: ['a', 'tickers/*'], publish: ['a'] }, 'bob')
  const bad = await badTokens(everything)
  const tokens = [...Array<string>(12).fill(all), ...Array<string>(4).fill(some), null, null, null, ...bad]
  const unlimited = { MAX_CONNECTIONS_PER_CLIENT: '0', CONNECT_RATE: '0', WRITE_RATE: '0' }
  await fuzz(t, { JWT_SECRET: SECRET, ...unlimited }, tokens, { all: [all], some: [some] })
})

t.test('each operation was not only refused', async t => {
  // what these end has a name that nobody guesses
  const refused = [...done].filter(([operation, served]) => !served && !BY_ID.includes(operation))
  t.strictSame(refused, [])
})

/** The tokens of whoever may do everything, and of whoever may do little. */
interface Rights {
  readonly all: readonly string[]
  readonly some: readonly string[]
}

/** Half of the requests, against a server of their own. */
async function fuzz(
  t: Test,
  env: Record<string, string>,
  tokens: readonly (string | null)[],
  rights: Rights
): Promise<void> {
  const total = Math.ceil(REQUESTS / 2)
  const server = await serve(t, {
    ...{ RING_SIZE: '10', MAX_EVENT_BYTES: '4096', MAX_CONNECTIONS: '0', RETRY: '50ms', LOG_LEVEL: 'trace' },
    NODE_OPTIONS: '--inspect=127.0.0.1:0',
    ...env
  })
  const inspector = await Inspector.of(t, server)
  const { index, 0: end } = await eventually(
    () => /Room .*\n/.exec(server.stdout()),
    greeting => greeting !== null,
    'the end of what it says at the start'
  ).then(greeting => greeting!)
  const greeting = index + end.length
  const description = await describe(server)
  const random = randomFrom(SEED)
  const requests = new Requests(description, random, tokens)
  const judge = new Judge(description, rights)
  const descriptors = descriptorsOf(server)
  const kept: number[] = []
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS })
  t.teardown(() => agent.destroy())

  let number = 0
  async function work(until: number): Promise<void> {
    while (number < until) {
      const request = requests.next()
      if (number++ % DAMAGED === 0) judge.damaged(await damage(server, request, random))
      else {
        const outcome = await send(server, agent, request)
        judge.answered(request, outcome)
        if (typeof outcome !== 'string') requests.learn(outcome.text)
      }
    }
  }
  const started = Date.now()
  for (const round of ROUNDS) {
    await Promise.all(Array.from({ length: CONNECTIONS }, () => work(Math.round(total * round))))
    kept.push(await inspector.kept())
  }
  t.comment(`${total} requests in ${Date.now() - started} ms: ${judge.summary()}`)

  t.test('each is answered as it is described', async t => {
    for (const wrong of judge.wrong.slice(0, 20)) t.fail(wrong)
    t.equal(judge.wrong.length, 0, 'wrong answers')
    const least = Math.floor(total / 100)
    const rare = operationsOf(description).filter(({ operationId }) => judge.asked(operationId) < least)
    t.strictSame(
      rare.map(({ operationId }) => `${operationId}: ${judge.asked(operationId)}`),
      [],
      `each operation was asked ${least} times or more`
    )
    for (const { operationId } of operationsOf(description)) {
      done.set(operationId, judge.served(operationId) || done.get(operationId) === true)
    }
  })

  t.test('the server lives, and has complained of nothing', async t => {
    t.equal((await ask(server, '/readyz')).status, 200)
    t.equal(server.child.exitCode, null)
    const lines = server.stdout().slice(greeting).split('\n').slice(0, -1)
    t.strictSame(lines.filter(isComplaint), [], 'each line of the log is one of ours, and no warning')
    const complaints = server.stderr().split('\n')
    t.strictSame(
      complaints.filter(
        line =>
          line !== '' && !/^(Debugger|For help, see)|JWT_AUDIENCE and JWT_ISSUER: none is set/.test(line)
      ),
      []
    )
  })

  t.test('no connection, descriptor or memory is kept', async t => {
    agent.destroy()
    await eventually(
      async () =>
        [...(await metricsOf(server))].filter(
          ([name, value]) => /^ringside_(lagging_)?connections(\{|$)/.test(name) && value !== 0
        ),
      open => open.length === 0,
      'no connection'
    )
    await eventually(
      () => descriptorsOf(server),
      // one or another may be the process' own
      now => now <= descriptors + 3,
      `${descriptors} descriptors`
    )
    const [first = 0, last = 0] = [kept[0], kept.at(-1)]
    const each = Math.round((last - first) / (total * (1 - ROUNDS[0]!)))
    const megabytes = kept.map(bytes => Math.round(bytes / 1e5) / 10)
    t.ok(each < KEPT, `${each} bytes a request are kept; after each round: ${megabytes.join(', ')} MB`)
  })
}

/** Whether a line of the log is none, or one that somebody should look at. */
function isComplaint(line: string): boolean {
  try {
    const { level, pid } = JSON.parse(line) as { level: number; pid: number }
    return typeof pid !== 'number' || !(level < 40)
  } catch {
    return true
  }
}

/** What is no token of anybody, though it looks like one of somebody who may do everything. */
async function badTokens(ringside: object): Promise<string[]> {
  const good = await tokenOf({ ringside })
  const [head, payload, signature] = good.split('.') as [string, string, string]
  const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return [
    await tokenOf({ ringside }, { key: 'another secret, of which nobody knows a thing' }),
    await tokenOf({ ringside, exp: secondsFromNow(-3600) }),
    await tokenOf({ ringside, exp: undefined }),
    await tokenOf({ ringside: { subscribe: ['a//b'], publish: 7 } }),
    `${encode({ alg: 'none' })}.${payload}.`,
    `${encode({ alg: ['HS256'] })}.${payload}.${signature}`,
    `${encode('['.repeat(500))}.${payload}.${signature}`,
    `${head}.${payload}.${signature.slice(1)}`,
    `${head}.${payload}`,
    `${good}.${good}`,
    good.replace(payload, payload.toLowerCase()),
    `${head}.${'A'.repeat(9000)}.${signature}`,
    ...['..', '__proto__', '\u00e9', 'null', '%00', '"', 'a.b.c']
  ]
}

/** An answer, as far as it was read; or why there is none. */
type Outcome = Answer | 'held' | 'refused' | 'closed' | 'silent'

interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

/** Sends it as it is. A stream is closed after its head and first bytes, and whoever waits for an event goes away. */
function send(server: Address, agent: Agent, { method, path, headers, body }: FuzzRequest): Promise<Outcome> {
  return new Promise(resolve => {
    const flat = headers.flat()
    // Node adds none when they are given so
    if (!headers.some(([name]) => name === 'host')) flat.push('Host', HOST)
    if (body) flat.push('Content-Length', String(body.length))
    // Node does not tell that it can't read a request behind one that wanted to upgrade, and did not
    const upgrades = headers.some(([name]) => name === 'upgrade')
    const way = { agent: upgrades ? false : agent }
    const sent = httpRequest({ host: '127.0.0.1', port: server.port, method, path, headers: flat, ...way })
    const end = (outcome: Outcome) => {
      clearTimeout(timer)
      resolve(outcome)
    }
    const waits = /[?&]wait=/.test(path)
    const timer = setTimeout(
      () => {
        end(waits ? 'held' : 'silent')
        sent.destroy()
      },
      waits ? 100 : 10_000
    )
    sent.on('error', () => end(body && body.length > LARGE ? 'refused' : 'closed'))
    sent.on('response', response => {
      const { statusCode, headers } = response
      const chunks: Buffer[] = []
      const text = () => {
        const bytes = Buffer.concat(chunks)
        if (headers['content-encoding'] !== 'gzip' || bytes.length === 0) return bytes.toString()
        return gunzipSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH }).toString()
      }
      const answer = () => ({ status: statusCode!, headers, text: text() })
      const streams = method === 'GET' && /event-stream|ndjson/.test(headers['content-type'] ?? '')
      response.on('error', () => end('closed'))
      response.on('data', (chunk: Buffer) => {
        chunks.push(chunk)
        // what is compressed begins with a head of its own
        if (streams && text() !== '') leave()
      })
      response.on('end', () => end(answer()))
      const leave = () => {
        end(answer())
        sent.destroy()
      }
      // a stream of ndjson may begin with nothing
      if (/ndjson/.test(headers['content-type'] ?? '') && streams) setTimeout(leave, 5)
    })
    sent.end(body ?? undefined)
  })
}

/** Sends it with some bytes of its head changed, and hangs up; gives back what came. */
async function damage(
  server: Address,
  { method, path, headers, body }: FuzzRequest,
  random: () => number
): Promise<string> {
  const lines = [
    `${method} ${path} HTTP/1.1`,
    `Host: ${HOST}`,
    ...headers.map(([name, value]) => `${name}: ${value}`)
  ]
  if (body) lines.push(`Content-Length: ${body.length}`)
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  const pieces = [
    ...['\r', '\n', '\r\n', '\0', ' ', ':', '\xff', '\r\n ', '\r\n\r\n'],
    ...['\r\nContent-Length: 5\r\n', '\r\nTransfer-Encoding: chunked\r\n']
  ]
  for (let count = 0; count < 2; count++) {
    const at = Math.floor(random() * head.length)
    if (random() < 0.5) head[at] = Math.floor(random() * 256)
    else head.write(pieces[Math.floor(random() * pieces.length)]!, at, 'latin1')
  }
  const socket = connect({ host: '127.0.0.1', port: server.port })
  let text = ''
  socket.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
  socket.on('error', () => {}) // 'close' follows
  socket.end(body ? Buffer.concat([head, body]) : head)
  await inTime(new Promise(resolve => socket.once('close', resolve)), 'the end of a connection', () => [
    String(head),
    text
  ])
  return text
}

/** What is wrong with answers, by a description. */
class Judge {
  readonly wrong: string[] = []
  readonly #description: Description
  readonly #rights: Rights
  readonly #operations: ReturnType<typeof operationsOf>
  /** How often each operation was answered, and with what; an outcome that is no answer counts for none. */
  readonly #counts = new Map<string, Map<number, number>>()

  constructor(description: Description, rights: Rights) {
    this.#description = description
    this.#rights = rights
    // what is plainly there comes before what stands for anything
    this.#operations = operationsOf(description).sort(
      (a, b) => a.path.split('{').length - b.path.split('{').length
    )
  }

  asked(operationId: string): number {
    return [...(this.#counts.get(operationId)?.values() ?? [])].reduce((sum, count) => sum + count, 0)
  }

  /** Whether it was once answered with a success. */
  served(operationId: string): boolean {
    return [...(this.#counts.get(operationId)?.keys() ?? [])].some(status => status < 300)
  }

  /** How often there was each status. */
  summary(): string {
    const all = new Map<number, number>()
    for (const counts of this.#counts.values()) {
      for (const [status, count] of counts) all.set(status, (all.get(status) ?? 0) + count)
    }
    return [...all]
      .sort()
      .map(each => each.join(': '))
      .join(', ')
  }

  damaged(text: string): void {
    const statuses = [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))
    if (statuses.some(status => status >= 500) || STACK.test(text))
      this.wrong.push(`damaged: ${text.slice(0, 1000)}`)
  }

  answered(request: FuzzRequest, outcome: Outcome): void {
    const why =
      typeof outcome === 'string'
        ? ['held', 'refused'].includes(outcome)
          ? null
          : outcome
        : this.#wrongIn(request, outcome)
    if (why === null) return
    const { method, path, headers, body } = request
    const answer =
      typeof outcome === 'string'
        ? outcome
        : `${outcome.status} ${outcome.headers['content-type']} ${outcome.text.slice(0, 300)}`
    const lines = headers.map(([name, value]) => `${name}: ${value.slice(0, 100)}`).join(' | ')
    this.wrong.push(
      `${why}: ${method} ${path.slice(0, 200)} | ${lines} | ${body?.toString().slice(0, 200)} => ${answer}`
    )
  }

  #wrongIn(request: FuzzRequest, { status, headers, text }: Answer): string | null {
    const { method, path } = request
    if (status >= 500) return 'a 5xx'
    if (INJECTED in headers) return 'a header that came from the request'
    if (status === 401 && !headers['www-authenticate']) return '401 without WWW-Authenticate'
    const type = headers['content-type']?.split(';')[0] ?? ''
    // Node's own answer, before anybody is asked
    if (status === 417 && text === '') return null
    if (status >= 400 && method !== 'HEAD') {
      if (type !== 'application/problem+json') return `an error as ${type}`
      const problem = JSON.parse(text) as { status: number }
      const wrong = wrongIn(this.#description, { $ref: '#/components/schemas/Problem' }, problem)
      if (wrong.length > 0) return `no problem: ${JSON.stringify(wrong)}`
      if (problem.status !== status) return `it says ${problem.status}`
      if (STACK.test(text)) return 'a stack'
    }
    // in development mode, before anybody is asked
    if (status === 421)
      return request.headers.some(([name]) => name === 'host') ? null : 'an own host is foreign'
    if (method === 'OPTIONS') return [204, ...GENERAL].includes(status) ? null : 'no answer to OPTIONS'
    if (status === 405)
      return headers['allow']?.split(', ').includes(method) === false
        ? null
        : 'a method is refused that there is'
    const operation = this.#operationOf(method, path)
    if (!operation) return GENERAL.includes(status) || status === 403 ? null : 'not a route'
    const { operationId, responses } = operation
    const counts = this.#counts.get(operationId) ?? new Map<number, number>()
    this.#counts.set(operationId, counts.set(status, (counts.get(status) ?? 0) + 1))
    if (status < 300 && !this.#mayBeServed(request, operation)) return `${operationId} is not theirs to ask`
    const described = responses[status]
    // an upgrade is refused to a page of elsewhere before it is looked at what is asked for
    if (!described && status === 403 && request.headers.some(([name]) => name === 'upgrade')) return null
    if (!described)
      return GENERAL.includes(status) && status !== 404 ? null : `not described of ${operationId}`
    if (method === 'HEAD' || text === '') return method === 'HEAD' && text !== '' ? 'content to HEAD' : null
    const media = described.content?.[type]
    if (!media) return `${type} is not described of ${operationId}`
    if (type === 'text/event-stream') return wrongStream(text)
    if (!/json$/.test(type) || /ndjson$/.test(type)) return null
    const wrong = wrongIn(this.#description, media.schema, JSON.parse(text))
    return wrong.length > 0 ? `not as described: ${JSON.stringify(wrong).slice(0, 500)}` : null
  }

  /** By the tokens in it, good ones, wherever they are. */
  #mayBeServed({ headers, path }: FuzzRequest, { operationId, responses }: Operation): boolean {
    const { all, some } = this.#rights
    if (all.length === 0 || !responses['401']) return true
    const shown = path + JSON.stringify(headers)
    if (all.some(token => shown.includes(token))) return true
    return some.some(token => shown.includes(token)) && !WRITES.includes(operationId)
  }

  #operationOf(method: string, path: string) {
    // a letter is the same when it is written as its number (RFC 3986, section 6.2.2.2)
    const plain = path.split(/[?#]/)[0]!.replace(/%[46][1-9a-f]|%[57][0-9a]/gi, decodeURIComponent)
    return this.#operations.find(operation => {
      if (operation.method.toUpperCase() !== method) return false
      // a topic has segments; nothing else that stands for anything has
      const pattern = operation.path.replace('{topic}', '.*').replace(/\{\w+\}/g, '[^/]+')
      return new RegExp(`^${pattern}$`, 's').test(plain)
    })
  }
}

function wrongStream(text: string): string | null {
  try {
    const [first] = new StrictParser().push(Buffer.from(text))
    const begins = ['cursor', 'gap', 'snapshot', 'goodbye'].includes(first?.event ?? '')
    return begins ? null : `a stream that begins with ${JSON.stringify(first)}`
  } catch (error) {
    return (error as Error).message
  }
}

/** What is asked of a process that was started with `--inspect`. */
class Inspector {
  readonly #socket: WebSocket
  #asked = 0

  private constructor(socket: WebSocket) {
    this.#socket = socket
  }

  static async of(t: Test, { stderr }: Run): Promise<Inspector> {
    const [url] = await eventually(
      () => /ws:\S+/.exec(stderr()),
      found => found !== null,
      'an inspector'
    ).then(found => found!)
    const socket = new WebSocket(url)
    t.teardown(() => socket.terminate())
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
    return new Inspector(socket)
  }

  /** The bytes that are still there after all garbage is gone. */
  async kept(): Promise<number> {
    await this.#ask('HeapProfiler.collectGarbage')
    const expression = '(({ heapUsed, external }) => heapUsed + external)(process.memoryUsage())'
    const { result } = (await this.#ask('Runtime.evaluate', { expression })) as { result: { value: number } }
    return result.value
  }

  #ask(method: string, params: object = {}): Promise<unknown> {
    const id = ++this.#asked
    const answer = new Promise<unknown>(resolve => {
      const look = (data: Buffer) => {
        const message = JSON.parse(data.toString()) as { id?: number; result: unknown }
        if (message.id !== id) return
        this.#socket.off('message', look)
        resolve(message.result)
      }
      this.#socket.on('message', look)
    })
    this.#socket.send(JSON.stringify({ id, method, params }))
    return inTime(answer, method)
  }
}

/** How many files and sockets a process has open, where the system says so. */
function descriptorsOf({ child }: Run): number {
  const folder = `/proc/${child.pid}/fd`
  return existsSync(folder) ? readdirSync(folder).length : 0
}
