import type { Redis } from 'ioredis'
import type { Settings } from '../../config.ts'
import { inSteps, readLines, TransferFailed, type Line } from '../transfer.ts'
import { ShardKeys } from './keys.ts'
import { Clients } from './open.ts'
import { hashTag } from './sharding.ts'
import { StoreFilling, type TransferRules } from './store-filling.ts'
import { keysFrom, StoreReading, UNDER_WAY, type Place } from './store-reading.ts'
import { redisTarget } from './url.ts'

export type TransferSettings = Parameters<typeof redisTarget>[0] & Pick<Settings, 'KEY_PREFIX' | 'SHARDS'>

/** Connects to the server that has a store. Throws `TransferFailed` where it can't be moved, or what keeps Redis from being asked. */
async function open({ KEY_PREFIX, SHARDS, ...settings }: TransferSettings): Promise<Place> {
  if (SHARDS > 1)
    throw new TransferFailed(
      `SHARDS=${SHARDS}: a store of several shards can't be moved, its cursors are of another shape`
    )
  let reason: Error | undefined
  const report = (_stage: string, error: Error) => (reason ??= error)
  const clients = new Clients({ target: redisTarget(settings), scripts: {}, appendsApart: false, report })
  try {
    await clients.ready()
    const keys = new ShardKeys(KEY_PREFIX, hashTag(0, 1), clients.database)
    return { keys, redis: await clients.subscriber(keys.clock) }
  } catch (error) {
    throw reason ?? error
  } finally {
    clients.close()
  }
}

// --- from Redis ---

/**
 * All lines of a store as of now, some at a time: the events that are stored meanwhile are not among them. A state that is
 * changed meanwhile comes as it is then, and the end says that readers may have lost something. Throws `TransferFailed`, and
 * what Redis says.
 */
export async function* exportRedis(settings: TransferSettings): AsyncGenerator<Line[]> {
  const place = await open(settings)
  try {
    yield* inSteps(new StoreReading(place).lines())
  } finally {
    place.redis.disconnect()
  }
}

// --- to Redis ---

/**
 * Fills a store, which must be empty, with what some lines say. When anything is wrong nothing is left in it, and until the
 * end has come no instance can use it. Throws `TransferFailed`, and what Redis says.
 */
export async function importRedis(
  settings: TransferSettings,
  chunks: AsyncIterable<Uint8Array>,
  rules: TransferRules
): Promise<void> {
  const place = await open(settings)
  try {
    await begin(place, settings.KEY_PREFIX)
    const evicted = await evictedKeys(place.redis)
    const filling = new StoreFilling(place, rules, evicted)
    await fill(filling, chunks).catch(async error => {
      await undo(place)
      throw error
    })
  } finally {
    place.redis.disconnect()
  }
}

/** Takes an empty store for this import alone. */
async function begin({ redis, keys }: Place, prefix: string): Promise<void> {
  if ((await redis.type(keys.clock)) === 'string')
    throw new TransferFailed(`${UNDER_WAY}: delete all keys that begin with ${keys.prefix}, and try again`)
  for await (const [name] of keysFrom(redis, `${prefix}{`))
    throw new TransferFailed(`there is something in it already, such as the key ${name}; see KEY_PREFIX`)
  if (!(await redis.set(keys.clock, UNDER_WAY, 'NX')))
    throw new TransferFailed('something else has begun to use it just now')
}

/** Deletes what was written: the clock last, which kept others away. */
async function undo({ redis, keys }: Place): Promise<void> {
  for await (const names of keysFrom(redis, keys.prefix)) {
    const others = names.filter(name => name !== keys.clock)
    if (others.length > 0) await redis.unlink(others)
  }
  await redis.del(keys.clock)
}

/** What the check script keeps of how many keys the server has evicted; undefined where nobody may ask. */
async function evictedKeys(redis: Redis): Promise<string | undefined> {
  const info = await redis.info().catch(() => '')
  const [, run] = /^run_id:(\w+)/m.exec(info) ?? []
  const [, count] = /^evicted_keys:(\d+)/m.exec(info) ?? []
  return run && count && `${run} ${count}`
}

async function fill(filling: StoreFilling, chunks: AsyncIterable<Uint8Array>): Promise<void> {
  for await (const lines of readLines(chunks)) {
    for (const [number, line] of lines) {
      filling.take(number, line)
      if (filling.isMuch) await filling.flush()
    }
  }
  await filling.finish()
}
