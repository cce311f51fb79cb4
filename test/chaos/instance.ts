import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createWriteStream } from 'node:fs'

/**
 * Runs the server under a shell that waits for its own standard input to end, and then kills it: that happens too when
 * this process dies without a word. The first line on standard output is the server's process id.
 */
const GUARD = `
  exec 3<&0
  "$@" </dev/null &
  server=$!
  echo $server
  { read -r _ <&3; kill -KILL $server; } >/dev/null 2>&1 &
  guard=$!
  wait $server 2>/dev/null
  code=$?
  kill $guard 2>/dev/null
  exit $code
`

/** How long a server may take to listen, in milliseconds. */
const START_MS = 60_000

/** One running `ringside serve`. */
export class Instance {
  readonly name: string
  readonly port: number
  readonly pid: number
  /** Resolves with the exit status; past 128 it was a signal. */
  readonly exited: Promise<number>
  readonly #guard: ChildProcess

  private constructor(name: string, port: number, pid: number, guard: ChildProcess, exited: Promise<number>) {
    this.name = name
    this.port = port
    this.pid = pid
    this.exited = exited
    this.#guard = guard
  }

  /** Starts the built command line; what it writes goes to a log file. Resolves once it listens. */
  static async start(name: string, cli: string, env: Record<string, string>, log: string): Promise<Instance> {
    const guard = spawn('sh', ['-c', GUARD, 'guard', process.execPath, cli, 'serve'], {
      env: { PATH: process.env['PATH'], ...env },
      stdio: ['pipe', 'pipe', 'pipe']
    })
    const exited = once(guard, 'exit').then(([code]) => code as number)
    const file = createWriteStream(log, { flags: 'a' })
    guard.stderr.pipe(file, { end: false })
    guard.stdin.on('error', () => {}) // it has ended by itself
    let written = ''
    const listening = new Promise<RegExpExecArray>((resolve, reject) => {
      guard.stdout.on('data', (chunk: Buffer) => {
        file.write(chunk)
        written += chunk.toString()
        const found = /^(\d+)\n[^]*?http:\/\/127\.0\.0\.1:(\d+)/.exec(written)
        if (found) resolve(found)
      })
      void exited.then(code => reject(new Error(`${name} ended with ${code} before it listened: ${written}`)))
      setTimeout(() => reject(new Error(`${name} does not listen: ${written}`)), START_MS).unref()
    })
    try {
      const [, pid, port] = await listening
      return new Instance(name, Number(port), Number(pid), guard, exited)
    } catch (error) {
      guard.stdin.end()
      throw error
    }
  }

  signal(signal: NodeJS.Signals): void {
    // its number may be another process's by now
    if (this.#guard.exitCode !== null) throw new Error(`${this.name} has ended`)
    process.kill(this.pid, signal)
  }

  /** Ends it now, whatever it does. */
  async kill(): Promise<void> {
    this.#guard.stdin!.end()
    await this.exited
  }
}
