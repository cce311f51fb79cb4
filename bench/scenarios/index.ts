import type { Scenario } from '../scenario.ts'
import { batch } from './batch.ts'
import { churn } from './churn.ts'
import { conflation } from './conflation.ts'
import { compression } from './compression.ts'
import { connectStorm } from './connect-storm.ts'
import { descriptors } from './descriptors.ts'
import { durable } from './durable.ts'
import { fanOut } from './fan-out.ts'
import { hundredThousand } from './hundred-thousand.ts'
import { idle } from './idle.ts'
import { latency } from './latency.ts'
import { manyTopics } from './many-topics.ts'
import { publish } from './publish.ts'
import { publishRedis } from './publish-redis.ts'
import { redisLatency } from './redis-latency.ts'
import { restart } from './restart.ts'
import { resumeStorm } from './resume-storm.ts'
import { saturated } from './saturated.ts'
import { slowReaders } from './slow-readers.ts'
import { stores } from './stores.ts'
import { websocket } from './websocket.ts'
import { wildcards, wildcardsRedis } from './wildcards.ts'

export const scenarios: readonly Scenario[] = [
  fanOut,
  saturated,
  websocket,
  batch,
  latency,
  redisLatency,
  idle,
  churn,
  connectStorm,
  resumeStorm,
  slowReaders,
  conflation,
  compression,
  publish,
  publishRedis,
  durable,
  stores,
  restart,
  manyTopics,
  wildcards,
  wildcardsRedis,
  descriptors,
  hundredThousand
]
