/**
 * What README.md and the pages for readers say is run as they say it: commands and snippets in the order in which they
 * stand, in one shell for each page, against the built server that the page starts. What a page shows of an answer is
 * compared but for ids and times; an id that the page shows again stands for the same id again.
 */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { format } from 'prettier'
import t, { type Test } from 'tap'
import { eventually } from './support/inbox.ts'
import { startRedis } from './support/redis-server.ts'
import { SECRET, tokenFor } from './support/tokens.ts'

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const PAGES = [
  'README.md',
  ...['docs', 'docs/guides'].flatMap(folder =>
    readdirSync(join(ROOT, folder))
      .filter(name => name.endsWith('.md'))
      .map(name => `${folder}/${name}`)
  )
]

/** What can't be run here, and why. */
const SKIPPED: readonly (readonly [RegExp, string])[] = [
  [/^apt-get /, 'installs what the tests themselves need, as root'],
  [/^npx wscat /, 'is fetched from the registry; test/contract/06-websocket.test.ts says the same messages'],
  [
    /^([A-Z]+=\S+ )*npm (ci --prefix bench|run bench|i --prefix \/var\/tmp\/stores)/,
    'takes more than an hour'
  ],
  [/^docker /, 'needs Docker'],
  [/^helm /, 'needs Helm; test/deploy/files.test.ts checks the chart'],
  [/^ringside completion (zsh|fish) /, 'needs these shells; test/cli/usage.test.ts asks for them'],
  [/^JWT_SECRET=… python3 /, 'needs PyJWT; test/recipes.test.ts runs it where that is']
]

/** What a page takes for granted. */
const BEFORE: Readonly<Record<string, readonly string[]>> = {
  'docs/admin.md': [
    `export JWT_SECRET='${SECRET}'`,
    'npm start',
    `ringside pub jobs/17 'half' --token "$(ringside token --publish 'jobs/*')"`
  ],
  'docs/cli.md': [
    `export JWT_SECRET='${SECRET}'`,
    `ANONYMOUS_SUBSCRIBE='**' npm start`,
    `ringside token --sub me --subscribe '**' --publish '**' > token`,
    `printf '{"data":1}\\n{"data":2}\\n' > events.ndjson`,
    `printf 'symbol,date,price\\nA,2026-01-01,1\\nA,2026-01-02,2\\n' > prices.csv`,
    `echo 'up and running' > app.log`
  ],
  // what its last snippet reads is somebody's own
  'docs/clients.md': [`JWT_SECRET='${SECRET}' ANONYMOUS_SUBSCRIBE='**' npm start`],
  'docs/operations.md': [
    'DATA_DIR=/var/lib/ringside npm start',
    `ringside pub orders 'Hello!'`,
    'kill $SERVER; wait $SERVER'
  ]
}

const TOKEN = await tokenFor({ subscribe: ['**'], publish: ['**'] })

/** What a snippet finds in a page at this address: what a browser has, and what is the reader's own code. */
const pageAt = (address: string) => `
import { EventSource as Source } from 'eventsource'
import { WebSocket as Socket } from 'ws'
const absolute = url => new URL(url, '${address}')
const { fetch: get } = globalThis
const nothing = () => {}
Object.assign(globalThis, {
  location: absolute('/'),
  localStorage: {},
  fetch: (url, init) => get(absolute(url), init),
  EventSource: class extends Source {
    constructor(url, init) {
      super(absolute(url), init)
    }
  },
  WebSocket: Socket,
  ...{ show: nothing, showOne: nothing, hideOne: nothing, showAll: nothing, showTyping: nothing },
  ...{ open: nothing, reload: nothing, render: nothing, newToken: async () => token, userOf: () => ({}) },
  ...{ badge: {}, user: 'alice', token: '${TOKEN}', stream: new EventTarget(), notificationId: '1-0' }
})
`

/** What goes on until it is ended; of that, what reads a stream. */
const ENDLESS = /^(curl -N|ringside (sub|replay)|tail -f) /
const READS = /^(curl -N|ringside sub) /

/** The order on the pages in which things are done. */
type Step =
  | { readonly kind: 'command'; readonly text: string; readonly shows: readonly string[] }
  | { readonly kind: 'snippet'; readonly text: string }

interface Block {
  /** What stands behind the fence; `indented` for lines that are indented. */
  readonly info: string
  readonly lines: readonly string[]
}

t.jobs = 3

const commands: string[] = []

for (const page of PAGES) {
  const blocks = blocksOf(readFileSync(join(ROOT, page), 'utf8'))
  const steps = blocks.flatMap(stepsOf)
  commands.push(...steps.map(({ text }) => text))
  t.test(page, { buffered: true }, async t => {
    for (const { info, lines } of blocks) await isWritten(t, info, lines.join('\n'))
    const toRun = steps.filter(({ text }) => !SKIPPED.some(([command]) => command.test(text)))
    if (toRun.length === 0) return
    const session = await Session.open(t)
    for (const text of BEFORE[page] ?? []) await session.take({ kind: 'command', text, shows: [] })
    for (const step of toRun) await session.take(step)
    await session.finish()
  })
}

t.test('what is not run still stands there', async t => {
  for (const [skipped] of SKIPPED)
    t.ok(
      commands.some(command => skipped.test(command)),
      String(skipped)
    )
})

// --- what a page says ---

function blocksOf(page: string): Block[] {
  // a block is fenced, or its lines are indented by four and stand behind an empty line
  const found = page.matchAll(/^```(.*)\n([^]*?)^```$|(?<=\n\n)((?: {4}.*\n)+)/gm)
  return [...found].map(([, info, fenced, indented]) => ({
    info: info ?? 'indented',
    lines: (fenced ?? indented!.replace(/^ {4}/gm, '')).trimEnd().split('\n')
  }))
}

function stepsOf({ info, lines }: Block): Step[] {
  const text = lines.join('\n')
  if (info === 'js' || info === 'ts') return /^interface /.test(text) ? [] : [{ kind: 'snippet', text }]
  if (info === 'console') return dialogueOf(lines)
  if (info !== 'indented' && info !== 'sh') return []
  const commands = text.replaceAll(/\\\n\s*/g, '').split('\n')
  return commands
    .filter(command => !command.startsWith('#'))
    .map(command => ({ kind: 'command', text: command, shows: [] }))
}

/** Whether a block is written in the language that it says. */
async function isWritten(t: Test, info: string, text: string): Promise<void> {
  const [language = ''] = info.split(' ')
  const parser = { js: 'babel', ts: 'typescript', json: 'json' }[language]
  if (parser) await t.resolves(format(text, { parser }), `a block is ${parser}`)
  if (language === 'python') {
    const { status, stderr } = spawnSync('python3', ['-c', 'import ast, sys; ast.parse(sys.stdin.read())'], {
      input: text,
      encoding: 'utf8'
    })
    t.equal(status, 0, 'a block is Python', { stderr })
  }
}

/** Lines that begin with `$ ` are commands; what follows each is what it prints. */
function dialogueOf(lines: readonly string[]): Step[] {
  const parts = lines.join('\n').split(/^\$ /m).slice(1)
  return parts.map(part => {
    const [text, ...shows] = part.trimEnd().split('\n') as [string, ...string[]]
    return { kind: 'command', text, shows }
  })
}

// --- what becomes of it ---

/** Something that runs on while the page goes on. */
interface Running {
  readonly text: string
  readonly shows: readonly string[]
  readonly printed: () => string
  readonly complaints: () => string
}

/** What became of a line: its status, or the process that runs it; what it has written so far. */
interface Said {
  readonly status: number
  readonly pid: number
  readonly printed: () => string
  readonly complaints: () => string
}

/** A shell in which a page is followed from its beginning to its end. */
class Session {
  readonly #t: Test
  readonly #port: number
  readonly #folder: string
  /** Where the page's commands are run. */
  readonly #checkout: string
  readonly #shell: ChildProcess
  readonly #running: Running[] = []
  /** The ids that came, by those that the page shows. */
  readonly #ids = new Map<string, string>()
  #heard = ''
  #commands = 0
  #server: number | null = null
  #redis: string | null = null

  static async open(t: Test): Promise<Session> {
    return new Session(t, await freePort())
  }

  constructor(t: Test, port: number) {
    this.#t = t
    this.#port = port
    this.#folder = mkdtempSync(join(tmpdir(), 'ringside-docs-'))
    this.#checkout = checkoutIn(this.#folder)
    const PATH = `${installIn(this.#folder)}:${process.env['PATH']}`
    const RINGSIDE_URL = `http://127.0.0.1:${port}`
    const env = { PATH, HOME: this.#folder, PORT: String(port), DRAIN: '0', RINGSIDE_URL }
    // in a group of its own: all that it starts ends with it
    this.#shell = spawn('bash', ['--norc'], { cwd: this.#checkout, env, detached: true, stdio: 'pipe' })
    this.#shell.stdout!.on('data', (bytes: Buffer) => (this.#heard += bytes.toString()))
    const exited = new Promise(resolve => this.#shell.on('close', resolve))
    t.teardown(async () => {
      process.kill(-this.#shell.pid!, 'SIGKILL')
      await exited
      rmSync(this.#folder, { recursive: true })
    })
  }

  async take(step: Step): Promise<void> {
    if (step.kind === 'snippet') return this.#runSnippet(step.text)
    const text = await this.#translated(step.text)
    if (text.includes('npm start')) return this.#startServer(text)
    if (text.includes('$SERVER')) this.#server = null
    else await this.#needServer()
    if (ENDLESS.test(text)) return this.#follow(text, step.shows)
    await this.#run(text, step.shows)
  }

  /** Waits until all that runs on has printed what the page shows. */
  async finish(): Promise<void> {
    for (const { text, shows, printed, complaints } of this.#running) {
      const says = () => this.#mismatch(shows, printed())
      await eventually(says, mismatch => mismatch === null, `${text}\n${shows.join('\n')}`)
      if (READS.test(text)) this.#t.pass(text)
      else this.#t.notMatch(complaints(), /^ringside: /m, text)
    }
  }

  async #run(text: string, shows: readonly string[]): Promise<void> {
    const { status, printed } = await this.#say(text)
    this.#t.equal(status, 0, text, { printed: printed() })
    if (shows.length > 0) this.#t.equal(this.#mismatch(shows, printed()), null, text)
    else this.#t.notMatch(printed(), /"status":[45]\d\d/, `${text}: is not refused`)
  }

  /** Runs what never ends, beside all that follows; resolves once a reader reads. */
  async #follow(text: string, shows: readonly string[]): Promise<void> {
    const before = await this.#readers()
    const { printed, complaints } = await this.#say(text, true)
    if (READS.test(text))
      await eventually(
        () => this.#readers(),
        readers => readers > before,
        text
      )
    this.#running.push({ text, shows, printed, complaints })
  }

  /** How many streams the server has. */
  async #readers(): Promise<number> {
    const answer = await fetch(`http://127.0.0.1:${this.#port}/metrics`)
    const counts = (await answer.text()).matchAll(/^ringside_connections\{.*\} (\d+)$/gm)
    return [...counts].reduce((sum, [, count]) => sum + Number(count), 0)
  }

  async #runSnippet(code: string): Promise<void> {
    await this.#needServer()
    const text = await this.#translated(code)
    const child = spawn(process.execPath, ['--input-type=module', '-'], {
      cwd: this.#checkout,
      stdio: 'pipe'
    })
    let said = ''
    child.stderr.on('data', (bytes: Buffer) => (said += bytes.toString()))
    let status: number | null = null
    const exited = new Promise<void>(resolve =>
      child.on('close', code => {
        status = code
        resolve()
      })
    )
    this.#t.teardown(async () => {
      child.kill('SIGKILL')
      await exited
    })
    // and a way to see that the snippet was run up to its end
    child.stdin.end(`${pageAt(`http://127.0.0.1:${this.#port}/`)}\n${text}\nconsole.error('ran to its end')`)
    await eventually(
      () => said,
      all => all.includes('ran to its end') || status !== null,
      code
    )
    this.#t.equal(said, 'ran to its end\n', code)
  }

  async #startServer(text: string): Promise<void> {
    // the second signal: at once, also with streams that are open
    if (this.#server !== null)
      await this.#say(`kill -TERM ${this.#server}; kill -INT ${this.#server}; wait ${this.#server}`)
    const command = text.replace('npm ci && ', '').replace(/ *&$/, '')
    const { pid } = await this.#say(
      command.replace('npm start', 'exec node dist/cli/ringside.js serve'),
      true
    )
    this.#server = pid
    await this.#say(`SERVER=${pid}`)
    // a page that goes on behind its `&` has to wait by itself
    if (!text.endsWith('&')) await this.#ready()
  }

  async #needServer(): Promise<void> {
    if (this.#server === null) await this.#startServer('npm start')
  }

  async #ready(): Promise<void> {
    const ask = () =>
      fetch(`http://127.0.0.1:${this.#port}/readyz`).then(
        ({ ok }) => ok,
        () => false
      )
    await eventually(ask, ok => ok, 'a server')
  }

  /** A command or a snippet with what is real here: port, folder, Redis, client library, ids. */
  async #translated(text: string): Promise<string> {
    if (text.includes('redis://127.0.0.1:6379') && this.#redis === null) {
      const redis = await startRedis()
      this.#t.teardown(() => redis.stop())
      this.#redis = redis.url
    }
    const real = text
      .replaceAll(`'http://127.0.0.1:3000/client.js'`, `'${join(ROOT, 'dist/client/client.js')}'`)
      .replaceAll(/https:\/\/(live\.example\.com|hub\.example)/g, 'http://127.0.0.1:3000')
      .replaceAll('127.0.0.1:3000', `127.0.0.1:${this.#port}`)
      .replaceAll('./follow.js', join(ROOT, 'examples/gap/follow.js'))
      .replaceAll('npx ringside-hub', 'ringside')
      .replaceAll('port: 8000', 'port: 0')
      .replaceAll('redis://127.0.0.1:6379', this.#redis ?? '')
      .replaceAll('/var/lib/ringside', join(this.#folder, 'data'))
    return real.replace(/\d{13}-\d+/g, id => this.#ids.get(id) ?? id)
  }

  /** Has the shell run a line, and gives back what became of it; beside all else, its process. */
  async #say(text: string, beside = false): Promise<Said> {
    const number = ++this.#commands
    const output = join(this.#folder, `${number}.txt`)
    const end = beside ? `& echo "${number} $!"` : `; echo "${number} $?"`
    this.#shell.stdin!.write(`{ ${text}\n} > ${output} 2> ${output}.errors < /dev/null ${end}\n`)
    const find = () => new RegExp(`^${number} (\\d+)$`, 'm').exec(this.#heard)
    const [, result] = (await eventually(find, found => found !== null, text))!
    const read = (file: string) => (existsSync(file) ? readFileSync(file, 'utf8') : '')
    return {
      ...{ status: Number(result), pid: Number(result) },
      ...{ printed: () => read(output), complaints: () => read(`${output}.errors`) }
    }
  }

  /** The first line that is not as the page shows it, and what there is instead; null where all are. */
  #mismatch(shows: readonly string[], printed: string): string | null {
    const lines = printed.split('\n')
    const wrong = shows.findIndex((shown, index) => !this.#isLike(shown, lines[index] ?? ''))
    return wrong === -1 ? null : `${shows[wrong]} is not: ${lines[wrong]}`
  }

  /** Whether a line is as it is shown: but for ids, times and `…`. */
  #isLike(shown: string, line: string): boolean {
    const ids = shown.match(/\d{13}-\d+/g) ?? []
    const pattern = shown
      .split(/(\d{13}-\d+|\d{13}|…)/)
      .map(part => {
        if (/^\d{13}-/.test(part)) return `(${this.#ids.get(part) ?? '\\d{13}-\\d+'})`
        if (/^\d{13}$/.test(part)) return '\\d{13}'
        return part === '…' ? '.*' : part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&')
      })
      .join('')
    const found = new RegExp(`^${pattern}$`).exec(line)
    for (const [index, id] of ids.entries()) if (found) this.#ids.set(id, found[index + 1]!)
    return found !== null
  }
}

/** A folder like the checkout in which a page may leave what it makes. */
function checkoutIn(folder: string): string {
  const checkout = join(folder, 'checkout')
  mkdirSync(checkout)
  for (const name of readdirSync(ROOT)) symlinkSync(join(ROOT, name), join(checkout, name))
  return checkout
}

/** A folder with the command, as `npm install --global` would give it. */
function installIn(folder: string): string {
  const bin = join(folder, 'bin')
  mkdirSync(bin)
  const command = join(ROOT, 'dist/cli/ringside.js')
  writeFileSync(join(bin, 'ringside'), `#!/bin/sh\nexec node ${command} "$@"\n`, { mode: 0o755 })
  return bin
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return port
}
