// Maven: com.auth0:java-jwt; java -cp ... Token.java USER PATTERN...
import com.auth0.jwt.JWT;
import com.auth0.jwt.algorithms.Algorithm;
import java.time.Instant;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

class Token {
  public static void main(String[] args) {
    List<String> patterns = Arrays.asList(args).subList(1, args.length);
    String token = JWT.create()
        .withSubject(args[0])
        .withExpiresAt(Instant.now().plusSeconds(3600))
        .withClaim("ringside", Map.of("subscribe", patterns))
        .sign(Algorithm.HMAC256(System.getenv("JWT_SECRET")));
    System.out.println(token);
  }
}
