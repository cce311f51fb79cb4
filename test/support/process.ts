import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import type { Address } from './app.ts'
import { inTime } from './inbox.ts'

export const CLI = fileURLToPath(new URL('../../dist/cli/ringside.js', import.meta.url))

/** How a process ended. */
export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** The built command line, as a process of its own. */
export interface Run {
  readonly child: ChildProcess
  /** What it has written so far. */
  readonly stdout: () => string
  readonly stderr: () => string
  readonly exited: Promise<Exit>
}

/**
 * Runs `ringside` with these arguments, no other environment than this, and no more descriptors. `stdin`: whether it has a
 * standard input that is written to.
 */
export function run(
  t: Test,
  args: readonly string[],
  env: Record<string, string> = {},
  descriptors?: number,
  stdin: 'ignore' | 'pipe' = 'ignore'
): Run {
  const limit = descriptors === undefined ? '' : `ulimit -n ${descriptors} && `
  const child = spawn('sh', ['-c', `${limit}exec "$0" "$@"`, process.execPath, CLI, ...args], {
    env: { PATH: process.env['PATH'], ...env },
    stdio: [stdin, 'pipe', 'pipe']
  })
  let stdout = ''
  let stderr = ''
  child.stdout!.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
  child.stderr!.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const exited = new Promise<Exit>(resolve => child.on('close', (code, signal) => resolve({ code, signal })))
  t.teardown(() => {
    if (child.exitCode === null) child.kill('SIGKILL')
    return exited
  })
  return { child, stdout: () => stdout, stderr: () => stderr, exited }
}

/** Runs `ringside serve` on a free port; resolves once it says where. */
export async function serve(
  t: Test,
  env: Record<string, string> = {},
  descriptors?: number
): Promise<Run & Address> {
  const all = { PORT: '0', DEMO: 'false', LOG_LEVEL: 'silent', ...env }
  const server = run(t, ['serve'], all, descriptors)
  const find = () => /https?:\/\/127\.0\.0\.1:(\d+)/.exec(server.stdout())
  const [url, port] = await inTime(
    new Promise<RegExpExecArray>((resolve, reject) => {
      server.child.stdout!.on('data', () => {
        const found = find()
        if (found) resolve(found)
      })
      void server.exited.then(() => reject(new Error(`it did not start: ${server.stderr()}`)))
    }),
    'a server',
    () => server.stderr()
  )
  return { ...server, url, port: Number(port) }
}

/** An address where nobody listens. */
export async function nobody(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  await once(server.close(), 'close')
  return `http://127.0.0.1:${port}`
}

/** How the process ended, in time. */
export function exitOf({ exited, stderr }: Run): Promise<Exit> {
  return inTime(exited, 'the end of the process', stderr)
}
