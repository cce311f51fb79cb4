import { setTimeout as delay } from 'node:timers/promises'
import t from 'tap'
import { eventually } from '../support/inbox.ts'
import { gather } from './crowd.ts'
import { Publisher, startFleet } from './fleet.ts'
import { isInstalled, KINDS, startReverseProxy, type Kind } from './proxies.ts'

/** Longer than the 60 s after which most proxies end what is silent, in milliseconds. */
const SILENCE_MS = 100_000

t.setTimeout(240_000)

// all proxies are silent at the same time, before the same instances
t.test('nothing is published for 100 s', async t => {
  const kinds = Object.entries<Kind>(KINDS).filter(([, kind]) => isInstalled(kind))
  if (kinds.length === 0) return t.plan(0, 'no proxy is installed')
  const fleet = await startFleet(t)
  const crowds = await Promise.all(
    kinds.map(async ([name, kind]) => {
      const proxy = await startReverseProxy(t, kind, fleet.instances)
      return { name, crowd: await gather(t, proxy) }
    })
  )
  await delay(SILENCE_MS)
  const publisher = new Publisher(fleet.instances[0]!, 1000)
  const number = await publisher.publish()
  for (const { name, crowd } of crowds) {
    await crowd.has(number)
    for (const listener of crowd.all) {
      t.strictSame(listener.got, [number], `${name}: ${listener.name}`)
      t.equal(listener.ends(), 0, `${name}: ${listener.name} was never cut`)
    }
  }
  t.equal(
    await eventually(
      () => fleet.connections(),
      count => count > 0,
      'connections'
    ),
    crowds.reduce((sum, { crowd }) => sum + crowd.all.length, 0)
  )
})
