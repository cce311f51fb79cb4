import t, { type Test } from 'tap'
import { Tokens } from '../../src/access/tokens.ts'
import { readSettings } from '../../src/config.ts'
import { HeldClock } from '../support/clock.ts'
import { SECRET, tokenOf } from '../support/tokens.ts'

const NOW = 1_700_000_000_000
const EXP = NOW / 1000 + 10
const TOLERANCE = 5000

function tokensOf(t: Test, clock: HeldClock): Tokens {
  const settings = readSettings({ JWT_SECRET: SECRET, JWT_CLOCK_TOLERANCE: `${TOLERANCE}ms` })
  return new Tokens(settings, clock, { warn: message => t.fail(message) })
}

t.test('a token that comes in time is good until it runs out, and no longer', async t => {
  const clock = new HeldClock(NOW)
  const { expires } = await tokensOf(t, clock).read(await tokenOf({ exp: EXP }))
  t.equal(expires, EXP * 1000)
})

t.test('one that comes late, but within the tolerance, is good until that is over', async t => {
  const clock = new HeldClock(NOW)
  const tokens = tokensOf(t, clock)
  const token = await tokenOf({ exp: EXP })
  await tokens.read(token)
  for (const late of [0, 2000, TOLERANCE - 1000]) {
    const known = tokensOf(t, new HeldClock(EXP * 1000 + late))
    t.equal((await known.read(token)).expires, EXP * 1000 + TOLERANCE, `${late} ms late`)
  }
  await clock.advance(12_000)
  t.equal((await tokens.read(token)).expires, EXP * 1000 + TOLERANCE, 'also one that came in time before')
  await clock.advance(TOLERANCE)
  await t.rejects(tokens.read(token), /has run out/)
})

t.test('one that is not valid yet is taken within the tolerance', async t => {
  const token = await tokenOf({ exp: EXP, nbf: NOW / 1000 })
  const at = (ms: number) => tokensOf(t, new HeldClock(ms)).read(token)
  t.equal((await at(NOW - TOLERANCE)).sub, 'alice')
  await t.rejects(at(NOW - TOLERANCE - 1000), /not valid yet/)
})
