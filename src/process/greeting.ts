import { hasKeys, type Settings } from '../config.ts'
import { defaultMemory } from '../memory.ts'
import type { Bounds } from '../net/sockets.ts'
import { logLine, warn } from './log.ts'

/**
 * Says on standard output that the server listens, as a line of the log or on a terminal in words, and on standard error
 * what is amiss with it. `bounds`: of each worker.
 */
export function greet(address: string, settings: Settings, bounds: Bounds): void {
  console.log(
    process.stdout.isTTY ? greeting(address, settings, bounds) : startLine(address, settings, bounds)
  )
  for (const line of warnings(settings, bounds)) warn(line)
}

/** Where the server listens, who may do what there, how to try it, and how much there is room for. */
export function greeting(address: string, settings: Settings, bounds: Bounds): string {
  const header = hasKeys(settings) ? " -H 'Authorization: Bearer …'" : ''
  return `
Ringside runs on ${address}, on ${storeOf(settings)}.

  ${access(settings).join('\n  ')}

  Look      ${address}/        the live page
            ${address}/docs    the API
  Listen    curl -N${header} '${address}/events?topic=hello'
  Publish   curl${header} -d 'Hello!' ${address}/events/hello
  Room      ${room(settings, bounds)}
`
}

/** The same as a line of the log. */
function startLine(address: string, settings: Settings, bounds: Bounds): string {
  const runs = `Ringside runs on ${address}, on ${storeOf(settings)}.`
  const said = [runs, ...access(settings), `Room ${room(settings, bounds)}.`]
  return logLine(said.join(' '), { address })
}

function storeOf({ REDIS_URL, DATA_DIR }: Settings): string {
  if (REDIS_URL) return 'Redis'
  return DATA_DIR ? `the embedded store in ${DATA_DIR}` : 'the embedded memory broker'
}

/** Who may do what, in lines. */
function access(settings: Settings): string[] {
  if (!hasKeys(settings)) {
    const loud = ['DEVELOPMENT MODE: no key is configured, so everyone may read and write everything.']
    return settings.INSECURE ? [...loud, 'INSECURE is set: that is everyone who reaches this address.'] : loud
  }
  const keys = (['JWT_SECRET', 'JWT_PUBLIC_KEY', 'JWKS_URL'] as const).filter(name => settings[name] !== '')
  const patterns = settings.ANONYMOUS_SUBSCRIBE
  return [
    `Tokens are checked with ${keys.join(', ')}.`,
    `Without a token ${patterns.length > 0 ? patterns.join(', ') : 'nothing'} may be read.`
  ]
}

/** How much all workers hold together. */
function room({ MEMORY, WORKERS }: Settings, { maxConnections, maxSockets }: Bounds): string {
  const together = (most: number) => (most === Infinity ? 'any number of' : most * WORKERS)
  const memory = `${Math.floor((MEMORY ?? defaultMemory()) / 2 ** 20)} MiB`
  const each = WORKERS > 1 ? ' in each worker' : ''
  return `for ${together(maxConnections)} streams, and ${together(maxSockets)} sockets in all; MEMORY ${memory}${each}`
}

/** What is amiss, in a line each. */
export function warnings(settings: Settings, { maxConnections, maxSockets }: Bounds): string[] {
  const { MAX_CONNECTIONS, JWKS_URL, JWT_AUDIENCE, JWT_ISSUER, DATA_DIR } = settings
  const isUnbound = hasKeys(settings) && JWT_AUDIENCE.length === 0 && JWT_ISSUER.length === 0
  const found = [
    maxConnections > maxSockets &&
      maxConnections !== Infinity &&
      `MAX_CONNECTIONS=${MAX_CONNECTIONS}: there are too few descriptors; raise ulimit -Hn`,
    DATA_DIR !== '' && unflushed(settings),
    JWKS_URL.startsWith('http:') &&
      `JWKS_URL=${JWKS_URL}: over http whoever stands between can give the server other keys; use https`,
    isUnbound &&
      'JWT_AUDIENCE and JWT_ISSUER: none is set, so every token counts that was signed with the keys, whoever it is for'
  ]
  return found.filter(line => line !== false)
}

function unflushed({ FSYNC }: Settings): string | false {
  if (FSYNC === 'commit') return false
  const when = FSYNC === 'off' ? 'when the system does' : `every ${FSYNC} ms`
  return `FSYNC: what is stored is flushed ${when}; a power cut may lose what was acknowledged before`
}
