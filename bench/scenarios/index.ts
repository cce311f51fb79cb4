import type { Scenario } from '../scenario.ts'
import { batch } from './batch.ts'
import { conflation } from './conflation.ts'
import { connectStorm } from './connect-storm.ts'
import { descriptors } from './descriptors.ts'
import { fanOut } from './fan-out.ts'
import { idle } from './idle.ts'
import { latency } from './latency.ts'
import { manyTopics } from './many-topics.ts'
import { publishRate } from './publish-rate.ts'
import { resumeStorm } from './resume-storm.ts'
import { slowReaders } from './slow-readers.ts'

export const scenarios: readonly Scenario[] = [
  fanOut,
  batch,
  latency,
  idle,
  connectStorm,
  resumeStorm,
  slowReaders,
  conflation,
  publishRate,
  manyTopics,
  descriptors
]
