import t from 'tap'
import { Progress } from '../../src/hub/progress.ts'
import type { Session, SessionState } from '../../src/hub/session.ts'
import type { Sink } from '../../src/hub/sink.ts'
import { plain } from '../../src/wire/packing.ts'
import { sse } from '../../src/wire/sse.ts'
import { Stage } from './stage.ts'

const NOWHERE: Sink = { pending: 0, write: () => {}, end: () => {} }

/** A session in each of its states. */
async function sessions(): Promise<Record<SessionState, Session>> {
  const stage = await Stage.begin({ SEND_BUFFER: 10 })
  const [live, lagging, closed] = [await stage.open('a'), await stage.open('a'), await stage.open('a')]
  lagging.slow = true
  for (let time = 0; time < 2; time++) {
    await stage.publish('a')
    await stage.flow()
  }
  closed.session.close('client')
  const asked = stage.ask('b', { after: (await stage.publish('b', 'b'))[0]! })
  stage.log.release(0)
  const catchingUp = await asked
  return {
    opened: await stage.hub.open({ filters: ['a'], format: sse(false), packing: plain }),
    'catching up': catchingUp.session,
    live: live.session,
    lagging: lagging.session,
    closed: closed.session
  }
}

/** What changes a state: from which states it may, and what it leads to. */
const changes: [string, (session: Session) => void, SessionState[], SessionState][] = [
  ['listen', session => session.listen(NOWHERE), ['opened'], 'catching up'],
  ['goLive', session => session.goLive(), ['catching up'], 'live'],
  ['lag', session => session.lag(session.cursor, 0), ['live'], 'lagging'],
  ['fallBehind', session => session.fallBehind(), ['catching up'], 'lagging'],
  ['release', session => session.release(session.cursor, 0), ['live'], 'catching up'],
  [
    'putBack',
    session => session.putBack(new Progress(session.cursor)),
    ['catching up', 'live', 'lagging'],
    'opened'
  ]
]

t.test('a session changes its state as the table says, and not otherwise', async t => {
  for (const [name, change, from, to] of changes) {
    for (const [state, session] of Object.entries(await sessions())) {
      t.equal(session.state, state)
      if (from.includes(session.state)) {
        change(session)
        t.equal(session.state, to, `${state}, it may ${name}`)
      } else {
        t.throws(() => change(session), { message: `a session that is ${state} can't ${name}` })
        t.equal(session.state, state, `${state}, it can't ${name}`)
      }
    }
  }
})

t.test('a session may be closed wherever it stands, and that is its end', async t => {
  for (const session of Object.values(await sessions())) {
    session.close('client')
    t.equal(session.state, 'closed')
    session.close('client')
    session.drained()
    session.goodbye('shutdown', 1)
    t.equal(session.state, 'closed')
  }
})
