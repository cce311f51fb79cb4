import calculateSlot from 'cluster-key-slot'
import { Cluster, Redis, type ClusterOptions } from 'ioredis'
import type { RedisTarget } from './url.ts'
import { COMMAND_TIMEOUT_MS } from './wire.ts'

/** Takes what went wrong, and where. */
export type Report = (stage: string, error: Error) => void

/** Scripts by the names of the commands that they become. */
export type Scripts = NonNullable<ClusterOptions['scripts']>

/**
 * Connects to Redis, to the primary that Sentinels name, or to a Cluster, and keeps connected. `report` is told why there
 * is no connection.
 */
export function openClient(target: RedisTarget, scripts: Scripts, report: Report): Redis | Cluster {
  const shared = {
    ...target.options,
    scripts,
    connectTimeout: COMMAND_TIMEOUT_MS,
    commandTimeout: COMMAND_TIMEOUT_MS,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // a replica that was a primary when we connected: look for the primary again
    reconnectOnError: (error: Error) => error.message.startsWith('READONLY')
  }
  const client =
    target.kind === 'cluster'
      ? new Cluster(target.nodes, {
          redisOptions: shared,
          scripts,
          enableOfflineQueue: false,
          slotsRefreshTimeout: COMMAND_TIMEOUT_MS,
          clusterRetryStrategy: backOff
        })
      : new Redis({
          ...shared,
          enableOfflineQueue: false,
          retryStrategy: backOff,
          sentinelRetryStrategy: backOff
        })
  client.on('error', (error: Error) => report('commands', error))
  // a slot on its way has some keys here and some there: no script must run on a part of them. Without ASKING the
  // other node refuses until it has all
  if (client instanceof Cluster)
    client.on('+node', (node: Redis) => (node.asking = () => Promise.resolve('OK')))
  return client
}

/** A connection to subscribe on, to the node that a key belongs to. It is connected, and doesn't reconnect. */
export async function openSubscriber(
  target: RedisTarget,
  commands: Redis | Cluster,
  key: string
): Promise<Redis> {
  const node = commands instanceof Cluster ? await primaryOf(commands, key) : {}
  const redis = new Redis({
    ...target.options,
    ...node,
    lazyConnect: true,
    connectTimeout: COMMAND_TIMEOUT_MS,
    commandTimeout: COMMAND_TIMEOUT_MS,
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResubscribe: false,
    retryStrategy: () => null,
    sentinelRetryStrategy: () => null
  })
  redis.on('error', () => {}) // 'close' follows
  await redis.connect()
  return redis
}

async function primaryOf(cluster: Cluster, key: string): Promise<{ host: string; port: number }> {
  const slot = calculateSlot(key)
  const ranges = await cluster.cluster('SLOTS')
  const range = ranges.find(([from, to]) => from <= slot && slot <= to)
  if (!range?.[2]) throw new Error(`no node serves slot ${slot}`)
  const [host, port] = range[2]
  return { host, port }
}

function backOff(times: number): number {
  return Math.min(50 * 2 ** times, 1000)
}
