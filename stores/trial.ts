/** What becomes of Ringside on one store. */
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Instance } from '../test/chaos/instance.ts'
import { startRedis, type RedisServer } from '../test/support/redis-server.ts'

/** How long an instance may take to be ready, in milliseconds. */
const READY_MS = 10_000

/** How long the conformance suite and the chaos run may take, in milliseconds. */
const SUITE_MS = 240_000

/** How much data the events have of which the memory is measured, in bytes. */
export const DATA_BYTES = 100

export interface Trial {
  /** As the store says; '?' where it says none. */
  readonly version: string
  /** `all N`, or what failed. */
  readonly conformance: string
  /** `zeros`, or what is not zero. */
  readonly chaos: string
  /** What an operator is told where the instance does not become ready; '' where it does. */
  readonly refusal: string
  /** Bytes of a ring of 1 and of 1,000 events, as MEMORY USAGE says; null where it does not. */
  readonly memory: readonly [one: number | null, thousand: number | null]
}

export interface TrialOptions {
  /** The program of the store. */
  readonly program: string
  /** A folder for what is written. */
  readonly folder: string
  /** For how long chaos strikes. */
  readonly seconds: number
}

/** Tries a store: first whether an instance becomes ready on it, and only then all else. */
export async function tryStore({ program, folder, seconds }: TrialOptions): Promise<Trial> {
  // what starts servers, here and in what is spawned, takes this one
  process.env['RINGSIDE_REDIS_SERVER'] = program
  const server = await startRedis()
  try {
    const version = await versionOf(server)
    const { refusal, memory } = await serve(server, join(folder, 'serve.log'))
    if (refusal !== '') return { version, refusal, memory, conformance: '–', chaos: '–' }
    const conformance = await runConformance()
    return { version, refusal, memory, conformance, chaos: await runChaos(seconds) }
  } finally {
    await server.stop()
  }
}

async function versionOf(server: RedisServer): Promise<string> {
  const info = await server.info('server').catch((): Record<string, string> => ({}))
  return info['valkey_version'] ?? info['redis_version'] ?? '?'
}

async function serve(server: RedisServer, log: string): Promise<Pick<Trial, 'refusal' | 'memory'>> {
  const env = { HOST: '127.0.0.1', PORT: '0', LOG_LEVEL: 'warn', REDIS_URL: server.url, RING_SIZE: '1000' }
  const instance = await Instance.start('trial', 'dist/cli/ringside.js', { ...env, DEMO: 'false' }, log)
  try {
    const url = `http://127.0.0.1:${instance.port}`
    const refusal = (await isReady(url)) ? '' : await refusalOf(url, log)
    const memory = refusal === '' ? await memoryOf(url, server) : ([null, null] as const)
    return { refusal, memory }
  } finally {
    await instance.kill()
  }
}

async function isReady(url: string): Promise<boolean> {
  const deadline = performance.now() + READY_MS
  while (performance.now() < deadline) {
    if ((await fetch(`${url}/readyz`)).status === 200) return true
    await delay(100)
  }
  return false
}

/** What an operator finds: the line of the log, and what /readyz says. */
async function refusalOf(url: string, log: string): Promise<string> {
  const ready = await fetch(`${url}/readyz`)
  const lines = readFileSync(log, 'utf8')
    .split('\n')
    .filter(line => line.startsWith('{'))
    .map(line => JSON.parse(line) as { msg: string; error?: string; err?: { message: string } })
    .map(({ msg, error, err }) => [msg, error ?? err?.message].filter(Boolean).join(': '))
  const told = [...new Set(lines)].slice(0, 2).join('; ')
  return `never ready. Log: ${told || 'nothing'}. /readyz: ${ready.status} ${await ready.text()}`
}

async function memoryOf(url: string, server: RedisServer): Promise<Trial['memory']> {
  const data = 'x'.repeat(DATA_BYTES - 2)
  const publish = async (topic: string, count: number) => {
    const body = JSON.stringify(Array.from({ length: count }, () => ({ topic, data })))
    const headers = { 'content-type': 'application/json' }
    const { status } = await fetch(`${url}/events`, { method: 'POST', headers, body })
    if (status !== 201) throw new Error(`${count} events: ${status}`)
    const [key] = (await server.command('KEYS', `*ring:${topic}`)) as string[]
    const usage = await server.command('MEMORY', 'USAGE', key!, 'SAMPLES', 0).catch(() => null)
    return typeof usage === 'number' ? usage : null
  }
  return [await publish('trial/one', 1), await publish('trial/thousand', 1000)]
}

async function runConformance(): Promise<string> {
  const output = await outputOf('npx', [
    'tap',
    '--reporter=tap',
    '--timeout=200',
    'test/broker/redis.test.ts'
  ])
  const [, pass, fail = '0'] = /^# \{ total: \d+, pass: (\d+)(?:, fail: (\d+))?/m.exec(output.text) ?? []
  if (pass === undefined) return 'did not end'
  if (fail === '0' && output.code === 0) return `all ${pass}`
  // of each failure the innermost subtest
  const failed = [...output.text.matchAll(/^ {12}not ok \d+ - (.*?) #/gm)].map(([, name]) => name!)
  return `${fail} of ${Number(pass) + Number(fail)} fail: ${[...new Set(failed)].slice(0, 5).join('; ')}`
}

async function runChaos(seconds: number): Promise<string> {
  const args = ['.tap/chaos/test/chaos/run.js', '--seconds', String(seconds), '--subscribers', '40']
  const { text, code } = await outputOf(process.execPath, args)
  if (code === 0) return 'zeros'
  const zeros = text.slice(0, text.search(/^seed /m))
  const wrong = [...zeros.matchAll(/^(.*?) {2,}(\d+)$/gm)].filter(([, , count]) => count !== '0')
  return wrong.map(([, name, count]) => `${name} ${count}`).join(', ') || 'did not end'
}

/** Runs a program; resolves with what it wrote, when it has ended or its time is up. */
async function outputOf(
  command: string,
  args: readonly string[]
): Promise<{ text: string; code: number | null }> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'], timeout: SUITE_MS })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
  const code = await new Promise<number | null>(resolve => child.on('close', resolve))
  return { text, code }
}
