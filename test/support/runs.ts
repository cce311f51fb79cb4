import { Session } from 'node:inspector'

/**
 * How often the piece of code ran that ran most often while something was done, among the files whose path a pattern
 * matches: counted by V8, so that what is measured knows nothing of it. A loop over many things shows, whatever it calls.
 */
export async function mostRuns(files: RegExp, work: () => Promise<unknown>): Promise<number> {
  const session = new Session()
  session.connect()
  try {
    session.post('Profiler.enable')
    session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
    session.post('Profiler.takePreciseCoverage')
    await work()
    let most = 0
    session.post('Profiler.takePreciseCoverage', (error, coverage) => {
      if (error) throw error
      const scripts = coverage.result.filter(({ url }) => files.test(url))
      for (const { ranges } of scripts.flatMap(({ functions }) => functions))
        for (const { count } of ranges) most = Math.max(most, count)
    })
    return most
  } finally {
    session.post('Profiler.stopPreciseCoverage')
    session.disconnect()
  }
}
