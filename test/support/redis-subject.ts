import { setTimeout as delay } from 'node:timers/promises'
import { RedisBroker } from '../../src/broker/redis/broker.ts'
import type { Report } from '../../src/broker/redis/open.ts'
import { readRedisUrl } from '../../src/broker/redis/url.ts'
import { systemClock } from '../../src/clock.ts'
import { readSettings } from '../../src/config.ts'
import { Rules } from '../../src/rules/rules.ts'
import type { MakeSubject } from '../broker/conformance/subject.ts'
import type { RedisServer } from './redis-server.ts'

let made = 0

/**
 * Brokers on a Redis that is there, each under a prefix of its own, so that each finds an empty store. `server` is asked
 * for the time: what passes there has passed for the broker.
 */
export function subjectsOn(
  REDIS_URL: string,
  server: RedisServer,
  env: Record<string, string> = {}
): MakeSubject {
  return async (t, { RING_SIZE, RING_TTL, rules: list }) => {
    const settings = readSettings({
      ...{
        REDIS_URL,
        KEY_PREFIX: `subject-${++made}:`,
        RING_SIZE: String(RING_SIZE),
        RING_TTL: `${RING_TTL}ms`
      },
      ...env
    })
    const rules = new Rules(settings, list)
    const report: Report = (stage, error) => t.comment(`${stage}: ${error.message}`)
    const open = () =>
      new RedisBroker(readRedisUrl(REDIS_URL), settings, systemClock, report, undefined, undefined, rules)
    const now = async () => {
      const [seconds, micros] = (await server.command('TIME')) as [string, string]
      return Number(seconds) * 1000 + Number(micros) / 1000
    }
    const pass = async (ms: number) => {
      const end = (await now()) + ms
      for (let left = ms; left > 0; left = end - (await now())) await delay(left)
    }
    return {
      broker: open(),
      rules,
      keeps: true,
      restart: () => Promise.resolve(open()),
      another: () => Promise.resolve(open()),
      pass,
      isHeld: false
    }
  }
}
