import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { createServer, connect, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CLOCK_TICKS, descriptorLimit, pinned, SERVER_CORE } from '../machine.ts'

/** How to run a server. */
export interface Command {
  readonly file: string
  readonly args: readonly string[]
  readonly env?: Record<string, string>
}

/** What a server that runs needs to be told: a free port, and a directory of its own. */
export interface Place {
  readonly port: number
  readonly directory: string
}

export interface ServerOptions {
  readonly core?: number
  /** Whether its garbage can be collected by our will, where it is a Node server. */
  readonly collectable?: boolean | undefined
  /** The limit of its open files; the load's own when it isn't given. */
  readonly descriptors?: number | undefined
}

/** Collects a Node server's garbage when it is told to, so that what it keeps can be told from what it hasn't dropped yet. */
const COLLECT = [
  '--expose-gc',
  '--import',
  `data:text/javascript,process.on('SIGWINCH', () => globalThis.gc())`
]

const START_MS = 20_000

/** A server under test: a process of its own, on its own core. */
export class Server {
  readonly port: number
  readonly pid: number
  readonly collectable: boolean
  readonly #process: ChildProcess
  readonly #directory: string

  private constructor(port: number, process: ChildProcess, directory: string, collectable: boolean) {
    this.port = port
    this.pid = process.pid!
    this.collectable = collectable
    this.#process = process
    this.#directory = directory
  }

  static async start(command: (place: Place) => Command, options: ServerOptions = {}): Promise<Server> {
    const { core = SERVER_CORE, collectable = false, descriptors } = options
    const place = { port: await freePort(), directory: mkdtempSync(join(tmpdir(), 'ringside-bench-')) }
    const { file, args, env = {} } = command(place)
    const isNode = file === process.execPath
    const collects = isNode && collectable
    const [program, programArgs] = limited(
      descriptors,
      ...pinned(core, file, collects ? [...COLLECT, ...args] : args)
    )
    const child = spawn(program, programArgs, {
      env: { PATH: process.env['PATH'], HOME: place.directory, ...env },
      stdio: ['ignore', 'pipe', 'pipe']
    })
    let said = ''
    for (const stream of [child.stdout, child.stderr]) {
      // what comes later is read all the same, so that the server never waits for us
      stream.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-8192)))
    }
    for (const deadline = Date.now() + START_MS; ; await sleep(10)) {
      // a Node server takes a free port itself and says which
      const port = isNode
        ? Number(/(?:listening |https?:\/\/[\d.]+:)(\d+)/.exec(said)?.[1] ?? NaN)
        : place.port
      if (port > 0 && (await answers(port))) return new Server(port, child, place.directory, collects)
      if (child.exitCode === null && Date.now() < deadline) continue
      child.kill('SIGKILL')
      throw new Error(`${[file, ...args].join(' ')} does not start:\n${said}`)
    }
  }

  /** Processor time used so far, in microseconds; with its children's. */
  cpu(): number {
    return this.#processes().reduce((sum, pid) => {
      // the name may hold spaces and brackets
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ')
      return sum + ((Number(fields[11]) + Number(fields[12])) * 1e6) / CLOCK_TICKS
    }, 0)
  }

  /**
   * The same as the scheduler has it, to the microsecond: for what takes less than the hundredths of a second that `cpu` is
   * counted in. Threads that have ended are not in it.
   */
  preciseCpu(): number {
    const tasks = this.#processes().flatMap(pid =>
      readdirSync(`/proc/${pid}/task`).map(task => `/proc/${pid}/task/${task}/schedstat`)
    )
    // nanoseconds that it ran, then what it waited
    return tasks.reduce((sum, file) => sum + Number(readFileSync(file, 'utf8').split(' ')[0]) / 1000, 0)
  }

  /**
   * Memory in bytes: its own pages, and its part of those that it shares. `Pss_Anon`: without what is mapped of files, which
   * the system takes back when it needs it.
   */
  memory(kind: 'Pss' | 'Pss_Anon' = 'Pss'): number {
    return this.#processes().reduce((sum, pid) => {
      const [, kib] = new RegExp(`^${kind}: +(\\d+)`, 'm').exec(
        readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
      )!
      return sum + Number(kib) * 1024
    }, 0)
  }

  /** Memory once it has stopped moving. */
  async settledMemory(kind: 'Pss' | 'Pss_Anon' = 'Pss'): Promise<number> {
    let before = this.memory(kind)
    for (let tries = 0; tries < 10; tries++) {
      await sleep(250)
      const now = this.memory(kind)
      if (Math.abs(now - before) < before / 200) return now
      before = now
    }
    return before
  }

  /** Memory once it has stopped moving; of a `collectable` server after its garbage was collected. */
  async restingMemory(): Promise<number> {
    if (!this.collectable) return this.settledMemory()
    for (let times = 0; times < 2; times++) {
      this.#process.kill('SIGWINCH')
      await sleep(250)
    }
    return this.settledMemory()
  }

  /** Begins a profile, or ends it, where the server was started with the profiler; nobody else minds this signal. */
  toggleProfile(): void {
    this.#process.kill('SIGURG')
  }

  /** The limit of its open files. */
  get descriptors(): number {
    return Number(descriptorLimit(this.pid))
  }

  async stop(): Promise<void> {
    if (this.#process.exitCode === null && this.#process.signalCode === null) {
      const ended = once(this.#process, 'exit')
      this.#process.kill('SIGTERM')
      const killer = setTimeout(() => this.#kill(), 5000)
      await ended
      clearTimeout(killer)
    }
    rmSync(this.#directory, { recursive: true, force: true })
  }

  /** Its children too: those that hang would stay when their parent is gone. */
  #kill(): void {
    for (const pid of this.#processes()) {
      try {
        process.kill(pid, 'SIGKILL')
      } catch {
        // it has gone meanwhile
      }
    }
  }

  #processes(): number[] {
    const found = [this.pid]
    // grows while it is walked
    for (const pid of found) found.push(...childrenOf(pid))
    return found
  }
}

function limited(descriptors: number | undefined, file: string, args: string[]): [string, string[]] {
  if (descriptors === undefined) return [file, args]
  return ['sh', ['-c', 'ulimit -n "$0" && exec "$@"', String(descriptors), file, ...args]]
}

function childrenOf(pid: number): number[] {
  return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  return new Promise(resolve => {
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
  }).finally(() => socket.destroy()) as Promise<boolean>
}
