import type { Constants } from './constants.ts'

/** What clients do, and what they do it on. Rates are a second. */
export interface Workload {
  readonly clients: number
  /** Topics that clients share: each client listens to one of them. */
  readonly topics: number
  /** Events of each of these topics. */
  readonly shared: number
  /** Events for one client alone, on a topic of its own. */
  readonly own: number
  /** Descriptors of a process (`ulimit -Hn`). */
  readonly descriptors: number
}

/** What that takes. Rates are a second, sizes bytes, times seconds. */
export interface Plan {
  readonly deliveries: number
  /** Bytes of streams that leave, plain and compressed, and with the heads of their packets. */
  readonly egress: number
  readonly gzipEgress: number
  readonly packets: number
  /** Cores that are busy with deliveries, with what is published for one client, and with taking it in. */
  readonly cores: number
  readonly gzipCores: number
  readonly tlsCores: number
  /** Processes of Ringside: each is half busy at most, and has no more streams than descriptors. */
  readonly processes: number
  readonly limit: 'one process is enough' | 'processor' | 'descriptors'
  readonly streamsEach: number
  /** Of the streams; of the processes without them, null while that has not been measured; of TLS in them. */
  readonly memory: number
  readonly processMemory: number | null
  readonly tlsMemory: number
  /** For how long a process is busy with the streams that it has when all come back at once. */
  readonly reopening: number
  /** Of Redis: what is stored, and its cores; what it announces; what it holds. */
  readonly published: number
  readonly redisCores: number
  readonly shards: number
  /** Systems that share nothing, each with a Redis of its own, since one has no more than so many shards. */
  readonly systems: number
  readonly announcements: number
  readonly ticks: number
  readonly redisMemory: number
}

/** How busy a core should be: what comes in bursts must fit. */
export const BUSY = 0.5

/** What a process keeps of its descriptors for all but streams (docs/operations.md). */
const RESERVED_DESCRIPTORS = 1000

/** The most shards (SHARDS). */
const MOST_SHARDS = 8

/** Memory that one shard of Redis should have at most: what is copied when a replica joins, or a fork writes it to disk. */
export const SHARD_MEMORY = 64e9

/** Heads of a packet: IPv4 20 bytes, TCP 20 and its timestamps 12 (RFC 791, 9293, 7323). Each delivery is one. */
export const PACKET_HEADS = 52

/** How often each instance asks each shard for a tick. */
const TICKS = 1

const KIB = 1024

/** What a workload takes, by the constants. Pure: no figure is in here that is not in the constants or named above. */
export function plan(workload: Workload, constants: Constants): Plan {
  const { clients, topics, shared, own, descriptors } = workload
  const of = (name: keyof Constants) => constants[name].value ?? 0
  const deliveries = clients * (shared + own)
  const published = topics * shared + clients * own
  const cores = (delivery: number) =>
    // what an event to one client costs has its being taken in
    (clients * shared * delivery + clients * own * of('ownEvent') + topics * shared * of('publish')) / 1e6

  const plain = cores(of('delivery'))
  const byProcessor = Math.ceil(plain / BUSY)
  const byDescriptors = Math.ceil(clients / (descriptors - RESERVED_DESCRIPTORS))
  const processes = Math.max(byProcessor, byDescriptors, 1)
  const streamsEach = Math.ceil(clients / processes)
  const { value: empty } = constants.process

  const redisCores = (published * of('redisEvent')) / 1e6
  // a client's own topic is there as long as its last event; those that are shared hardly count
  const redisMemory = (clients + topics) * of('ring') * 1000
  const shards = Math.max(Math.ceil(redisCores / BUSY), Math.ceil(redisMemory / SHARD_MEMORY), 1)
  return {
    deliveries,
    egress: deliveries * of('bytes'),
    gzipEgress: deliveries * of('gzipBytes'),
    packets: deliveries * PACKET_HEADS,
    cores: plain,
    gzipCores: cores(of('delivery') * of('gzipDelivery')),
    tlsCores: cores(of('deliveryTls')),
    processes,
    limit:
      processes === 1 ? 'one process is enough' : byProcessor > byDescriptors ? 'processor' : 'descriptors',
    streamsEach,
    memory: clients * of('stream') * KIB,
    processMemory: empty === null ? null : processes * empty * KIB ** 2,
    tlsMemory: clients * of('tlsStream') * KIB,
    reopening: (streamsEach * of('opening')) / 1e6,
    published,
    redisCores,
    shards,
    systems: Math.ceil(shards / MOST_SHARDS),
    announcements: topics * shared * instancesThatListen(processes, clients / topics) + clients * own,
    ticks: processes * shards * TICKS,
    redisMemory
  }
}

/** How many of some instances have one at least of so many clients, who are spread over them by chance. */
export function instancesThatListen(instances: number, clients: number): number {
  return instances * (1 - (1 - 1 / instances) ** clients)
}
