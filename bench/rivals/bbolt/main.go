// Command bbolt stores what is posted to it as Mercure does with its Bolt transport: one transaction an update, answered
// when that is committed, which flushes it. To measure Ringside beside it where Mercure can't be had. Nobody can read.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"os"

	"go.etcd.io/bbolt"
)

var updates = []byte("updates")

// update is what Mercure stores of one.
type update struct {
	Topics []string
	ID     string
	Data   string
}

func main() {
	db, err := bbolt.Open(os.Args[2], 0o600, nil)
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /events", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err == nil {
			err = store(db, update{Topics: []string{"bench"}, ID: "urn:uuid:" + r.RemoteAddr, Data: string(data)})
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	http.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "a page\n") })
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}

// store commits one update; bbolt lets one transaction write at a time.
func store(db *bbolt.DB, u update) error {
	value, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		bucket, err := tx.CreateBucketIfNotExists(updates)
		if err != nil {
			return err
		}
		sequence, err := bucket.NextSequence()
		if err != nil {
			return err
		}
		key := bytes.Join([][]byte{binary.BigEndian.AppendUint64(nil, sequence), []byte(u.ID)}, nil)
		bucket.FillPercent = 1 // keys only ever grow
		return bucket.Put(key, value)
	})
}
