import { fdatasync, openSync, write } from 'node:fs'
import { promisify } from 'node:util'
import { GroupCommit } from './group-commit.ts'

const writeAll = promisify(write)
const flush = promisify(fdatasync)

/** The floor of a store: lines at the end of a file, and one `fdatasync` for all that wait. It can't be asked anything. */
export function plainLog(file: string): GroupCommit<string> {
  const descriptor = openSync(file, 'a')
  return new GroupCommit(async lines => {
    const bytes = Buffer.from(`${lines.join('\n')}\n`)
    const { bytesWritten } = await writeAll(descriptor, bytes)
    if (bytesWritten < bytes.length) throw new Error('the disk is full')
    await flush(descriptor)
  })
}
