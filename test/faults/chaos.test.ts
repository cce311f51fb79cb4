import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { runChaos } from '../chaos/chaos.ts'

const SECONDS = 15

t.test(
  'instances, Redis and the network fail at random, and nobody is lied to',
  { timeout: 120_000 },
  async t => {
    const { zeros, figures, evidence } = await runChaos({
      ...{
        seed: 20,
        seconds: SECONDS,
        kind: 'single',
        shards: 1,
        ringSize: 1000,
        waitReplicas: 0,
        memory: undefined
      },
      ...{ subscribers: 60, members: 8, rate: 100 },
      cli: fileURLToPath(new URL('../../dist/cli/ringside.js', import.meta.url))
    })
    if (evidence) t.comment(readFileSync(evidence, 'utf8').slice(0, 10_000))
    t.comment(figures)
    for (const [what, count] of Object.entries(zeros)) t.equal(count, 0, what)
    const { acknowledged, resumes } = figures
    t.ok(Number(acknowledged) > SECONDS * 10, `${acknowledged} events were published`)
    for (const transport of ['sse', 'ndjson', 'poll', 'ws']) {
      const delivered = figures[`delivered: ${transport}`]
      t.ok(Number(delivered) > Number(acknowledged), `${delivered} delivered over ${transport}`)
    }
    t.ok(Number(resumes) > 60, `streams were resumed ${resumes} times`)
    t.ok(Number(figures['told of members']) > 100, `members were told ${figures['told of members']} times`)
    t.ok(Number(figures['polls']) > 200, `and ${figures['polls']} pages were asked for`)
  }
)
