import { hostname } from 'node:os'
import type { Writable } from 'node:stream'
import { inspect, styleText } from 'node:util'
import type { FastifyServerOptions } from 'fastify'
import type { Settings } from '../config.ts'

/** The levels of pino, by their numbers, and how each is shown. */
const LEVELS: Readonly<Record<number, [name: string, color: 'dim' | 'green' | 'yellow' | 'red']>> = {
  10: ['trace', 'dim'],
  20: ['debug', 'dim'],
  30: ['info', 'green'],
  40: ['warn', 'yellow'],
  50: ['error', 'red'],
  60: ['fatal', 'red']
}

/** How much may wait for a reader of the log who is slow, in bytes. */
const MOST_WAITING = 1024 * 1024

/**
 * How the server logs: an object of JSON a line; on a terminal the same in words. Never the query of a URL, nor a token.
 *
 * Lines go through the process's own stream: pino's waits for a slow reader with all else, and where the reader has gone it
 * may wait for him for ever, so that the process does not end. Here, what can't be written is left out.
 */
export function loggerOf({
  LOG_LEVEL
}: Pick<Settings, 'LOG_LEVEL'>): FastifyServerOptions['logger'] & object {
  return {
    level: LOG_LEVEL,
    serializers: {
      // a URL may hold a token
      req: ({ method, url, ip }) => ({ method, path: url.split('?')[0], ip })
    },
    stream: logStream(process.stdout)
  }
}

/** Writes lines of the log. */
export function logStream(out: Writable & { readonly isTTY?: boolean }): { write(line: string): void } {
  // nobody reads any more, or the disk is full: that is no reason to end
  if (out.listenerCount('error') === 0) out.on('error', () => {})
  const shown = out.isTTY ? pretty : (line: string) => line
  return {
    write(line) {
      if (out.writableLength < MOST_WAITING) out.write(shown(line))
    }
  }
}

/** What is said once, whatever the level is, as a line of the log. */
export function logLine(
  msg: string,
  fields: Readonly<Record<string, unknown>> = {},
  level: 30 | 40 = 30
): string {
  return JSON.stringify({
    level,
    time: Date.now(),
    pid: process.pid,
    hostname: hostname(),
    ...fields,
    msg
  })
}

/** Says on standard error what somebody should look at, whatever the level is. */
export function warn(message: string): void {
  console.error(process.stderr.isTTY ? `ringside: ${message}` : logLine(message, {}, 40))
}

/** A line of the log in words: when, how bad, what, and what else it says. Who reads it knows which process it is. */
export function pretty(line: string): string {
  const { level, time, pid, hostname: host, msg = '', err, ...rest } = JSON.parse(line) as LogLine
  const [name, color] = LEVELS[level] ?? [String(level), 'dim']
  const more = Object.entries(rest).map(
    ([key, value]) => ` ${key}=${inspect(value, { breakLength: Infinity })}`
  )
  const stack = err?.stack === undefined ? '' : `\n${styleText('dim', visible(err.stack))}`
  const clock = styleText('dim', new Date(time).toTimeString().slice(0, 8))
  return `${clock} ${styleText(color, name.padEnd(5))} ${visible(msg)}${styleText('dim', more.join(''))}${stack}\n`
}

interface LogLine {
  readonly level: number
  readonly time: number
  readonly pid?: number
  readonly hostname?: string
  readonly msg?: string
  readonly err?: { readonly stack?: string }
  readonly [field: string]: unknown
}

/** What a client has sent must not write over the terminal. */
function visible(text: string): string {
  return text.replace(/[^\P{C}\n]/gu, character => inspect(character).slice(1, -1))
}
