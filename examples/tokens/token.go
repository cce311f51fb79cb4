// go get github.com/golang-jwt/jwt/v5; go run token.go USER PATTERN...
package main

import (
	"fmt"
	"log"
	"os"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func main() {
	claims := jwt.MapClaims{
		"sub":      os.Args[1],
		"exp":      time.Now().Add(time.Hour).Unix(),
		"ringside": map[string]any{"subscribe": os.Args[2:]},
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(os.Getenv("JWT_SECRET")))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(token)
}
