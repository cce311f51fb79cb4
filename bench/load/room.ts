import { existsSync, readFileSync } from 'node:fs'
import { descriptorLimit } from '../machine.ts'
import { CONNECTING } from './crowd.ts'
import { SOURCES } from './subscribers.ts'

/** What a process has open beside its streams; the server keeps a thousand free for publishers and for turning away. */
const OTHER_DESCRIPTORS = 1100

/** What a stream takes on one machine that has both ends: in the server, in the load, and of the kernel for two sockets. */
const BYTES_A_STREAM = 20 * 1024

/** What is there without any stream: the processes of server and load, and Redis. */
const BYTES_BESIDE = 1.5 * 2 ** 30

export interface Need {
  readonly streams: number
  /** Processes of the server, and of the load as many: each has its part of the streams. */
  readonly processes: number
}

/** What of this machine is too small for so many streams, in a line; null when all is large enough. */
export function lackOfRoom({ streams, processes }: Need): string | null {
  const each = Math.ceil(streams / processes) + OTHER_DESCRIPTORS
  const [first, last] = numbersOf('/proc/sys/net/ipv4/ip_local_port_range')
  const lacks = [
    lack('ulimit -Hn', Number(descriptorLimit().replace('unlimited', 'Infinity')), each),
    lack(
      'fs.file-max',
      numbersOf('/proc/sys/fs/file-max')[0]!,
      2 * streams + 2 * processes * OTHER_DESCRIPTORS
    ),
    lack('net.ipv4.ip_local_port_range (ports)', (last! - first! + 1) * SOURCES, streams),
    // else those that connect at once are made to wait for a second or more, or are reset
    lack('net.core.somaxconn', numbersOf('/proc/sys/net/core/somaxconn')[0]!, processes * CONNECTING),
    // what was reset is remembered there for a while
    lack(
      'net.netfilter.nf_conntrack_max',
      numberOrNone('/proc/sys/net/netfilter/nf_conntrack_max'),
      2 * streams
    ),
    lack('available memory, in bytes', availableMemory(), streams * BYTES_A_STREAM + BYTES_BESIDE)
  ]
  const found = lacks.filter(each => each !== null)
  if (found.length === 0) return null
  return `too small for ${streams} streams on ${processes} processes: ${found.join('; ')}`
}

function lack(name: string, has: number, needed: number): string | null {
  return has >= needed ? null : `${name} is ${has}, ${needed} are needed`
}

function numberOrNone(file: string): number {
  return existsSync(file) ? numbersOf(file)[0]! : Infinity
}

function numbersOf(file: string): number[] {
  return readFileSync(file, 'utf8').trim().split(/\s+/).map(Number)
}

function availableMemory(): number {
  return Number(/^MemAvailable: +(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) * 1024
}
